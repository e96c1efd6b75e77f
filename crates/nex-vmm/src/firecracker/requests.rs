//! The requests to Firecracker, in order: pure functions, checked by golden files.
//!
//! The devices' names are the same for every machine, and files are named relative to its directory: a snapshot keeps the names.

use serde_json::{Map, Value, json};

use crate::files;
use crate::spec::{MachineSpec, Nic, RateLimiter, TokenBucket};

/// Name of the API's socket.
pub(super) const API: &str = "api.sock";
/// Name of the socket of the vsock device.
pub(super) const VSOCK: &str = "vsock.sock";
/// Name of the socket behind the host's vsock port 1024.
pub(super) const CHANNEL: &str = "vsock.sock_1024";
/// Name of a snapshot's memory.
pub(super) const MEMORY: &str = "snapshot.memory";
/// Name of a snapshot's state of devices.
pub(super) const STATE: &str = "snapshot.state";

const NIC: &str = "eth0";

/// A request to the API.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: Value,
}

fn put(path: &str, body: Value) -> Request {
    Request { method: "PUT", path: path.to_owned(), body }
}

fn patch(path: &str, body: Value) -> Request {
    Request { method: "PATCH", path: path.to_owned(), body }
}

/// Configures a machine and starts it.
pub(super) fn boot(spec: &MachineSpec) -> Vec<Request> {
    let mut requests = vec![
        put("/machine-config", json!({"vcpu_count": spec.vcpus, "mem_size_mib": spec.memory_mib, "smt": false})),
        put("/boot-source", json!({"kernel_image_path": files::KERNEL, "boot_args": kernel_arguments(spec)})),
        drive("root", files::ROOT, true, spec.drive_limiter.as_ref()),
    ];
    for slot in 0..spec.drives.len() {
        requests.push(drive(&drive_id(slot), &files::drive(slot), false, spec.drive_limiter.as_ref()));
    }
    if let Some(nic) = &spec.nic {
        requests.push(interface(nic));
        if spec.metadata {
            requests.push(put("/mmds/config", json!({"version": "V2", "network_interfaces": [NIC]})));
        }
    }
    requests.push(put("/vsock", json!({"guest_cid": 3, "uds_path": VSOCK})));
    if spec.balloon {
        requests.push(put("/balloon", json!({"amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 0})));
    }
    requests.push(put("/entropy", json!({})));
    requests.push(action("InstanceStart"));
    requests
}

/// Loads a snapshot and resumes it, with the new machine's own network limits.
pub(super) fn restore(spec: &MachineSpec) -> Vec<Request> {
    let memory = json!({"backend_type": "File", "backend_path": MEMORY});
    let mut load = json!({"snapshot_path": STATE, "mem_backend": memory, "resume_vm": false});
    let mut limits = None;
    if let (Some(nic), Some(load)) = (&spec.nic, load.as_object_mut()) {
        load.insert("network_overrides".to_owned(), json!([{"iface_id": NIC, "host_dev_name": nic.tap}]));
        limits = Some(limit_network(&nic.rx.unwrap_or_default(), &nic.tx.unwrap_or_default()));
    }
    [put("/snapshot/load", load)].into_iter().chain(limits).chain([state("Resumed")]).collect()
}

/// Pauses a machine and writes it.
pub(super) fn snapshot() -> Vec<Request> {
    let files = json!({"snapshot_type": "Full", "snapshot_path": STATE, "mem_file_path": MEMORY});
    vec![state("Paused"), put("/snapshot/create", files)]
}

/// Reopens a drive's file.
pub(super) fn swap_drive(slot: usize) -> Request {
    let id = drive_id(slot);
    patch(&format!("/drives/{id}"), json!({"drive_id": id, "path_on_host": files::drive(slot)}))
}

/// Replaces the metadata.
pub(super) fn set_metadata(value: &Value) -> Request {
    put("/mmds", value.clone())
}

/// Sets the balloon's size.
pub(super) fn set_balloon(mib: u32) -> Request {
    patch("/balloon", json!({"amount_mib": mib}))
}

/// Sets every limit of the network interface; an absent limit is sent as off, because leaving it out would keep the old one.
pub(super) fn limit_network(rx: &RateLimiter, tx: &RateLimiter) -> Request {
    let off = json!({"size": 0, "refill_time": 0});
    let whole = |limiter: &RateLimiter| {
        let one = |limit: Option<TokenBucket>| limit.map_or_else(|| off.clone(), |limit| bucket(&limit));
        json!({"bandwidth": one(limiter.bandwidth), "ops": one(limiter.ops)})
    };
    let body = json!({"iface_id": NIC, "rx_rate_limiter": whole(rx), "tx_rate_limiter": whole(tx)});
    patch(&format!("/network-interfaces/{NIC}"), body)
}

/// Presses the power button: a keyboard's Ctrl-Alt-Del.
pub(super) fn press_power() -> Request {
    action("SendCtrlAltDel")
}

fn action(action_type: &str) -> Request {
    put("/actions", json!({"action_type": action_type}))
}

fn state(state: &str) -> Request {
    patch("/vm", json!({"state": state}))
}

fn kernel_arguments(spec: &MachineSpec) -> String {
    // The keyboard controller serves Ctrl-Alt-Del only; probing it for other devices would slow down the boot.
    let fixed = "console=ttyS0 reboot=k panic=-1 i8042.noaux i8042.nomux i8042.dumbkbd";
    format!("{fixed} {}", spec.boot_args).trim_end().to_owned()
}

fn drive_id(slot: usize) -> String {
    format!("drive{slot}")
}

fn drive(id: &str, file: &str, root: bool, limiter: Option<&RateLimiter>) -> Request {
    let body = json!({"drive_id": id, "path_on_host": file, "is_root_device": root, "is_read_only": true});
    put(&format!("/drives/{id}"), with(body, [("rate_limiter", limiter)]))
}

fn interface(nic: &Nic) -> Request {
    let body = json!({"iface_id": NIC, "guest_mac": nic.mac.to_string(), "host_dev_name": nic.tap});
    let limiters = [("rx_rate_limiter", nic.rx.as_ref()), ("tx_rate_limiter", nic.tx.as_ref())];
    put(&format!("/network-interfaces/{NIC}"), with(body, limiters))
}

fn with<const N: usize>(mut body: Value, limiters: [(&str, Option<&RateLimiter>); N]) -> Value {
    if let Some(body) = body.as_object_mut() {
        body.extend(limiters.into_iter().filter_map(|(name, limiter)| Some((name.to_owned(), limits(limiter?)))));
    }
    body
}

fn limits(limiter: &RateLimiter) -> Value {
    let kinds = [("bandwidth", limiter.bandwidth), ("ops", limiter.ops)];
    kinds.into_iter().filter_map(|(kind, limit)| Some((kind.to_owned(), bucket(&limit?)))).collect::<Map<_, _>>().into()
}

fn bucket(bucket: &TokenBucket) -> Value {
    let mut value = json!({"size": bucket.size, "refill_time": bucket.refill_time_ms});
    if let (Some(burst), Some(value)) = (bucket.one_time_burst, value.as_object_mut()) {
        value.insert("one_time_burst".to_owned(), burst.into());
    }
    value
}
