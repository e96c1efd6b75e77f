//! QEMU's command line: a pure function, checked by golden files.
//!
//! The machine is `microvm` without ACPI: the kernel finds its devices by arguments that QEMU adds. Its timers are
//! essential: without `pit=on` a guest's clock never ticks, without `no_timer_check` some of many guests that boot at once panic.

use std::os::fd::RawFd;

use serde_json::json;

use super::accel::Accel;
use crate::files;
use crate::spec::{MachineSpec, RateLimiter, TokenBucket};

/// Launch parameters that are not in the specification.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaunchParams {
    pub(crate) accel: Accel,
    /// Frequency of the time stamp counter, for an emulated guest.
    pub(crate) tsc_khz: Option<u64>,
    /// Descriptor of one end of a stream, for commands.
    pub(crate) qmp: RawFd,
    /// Descriptor of a listening socket, for the channel.
    pub(crate) channel: RawFd,
    /// Descriptor of a file as large as the guest's memory.
    pub(crate) memory: RawFd,
    /// Descriptor of the tap, if there is a network interface.
    pub(crate) tap: Option<RawFd>,
    /// Whether the machine waits for a snapshot; its memory is then a private copy-on-write mapping.
    pub(crate) restore: bool,
}

/// virtio-mmio slots: [`MAX_DRIVES`](crate::MAX_DRIVES) drives, root, serial ports, random numbers, network and balloon use all.
const MMIO_SLOTS: usize = 8;

const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// The arguments, after the program's name.
pub(crate) fn argv(spec: &MachineSpec, params: LaunchParams) -> Vec<String> {
    let mut argv = Argv(Vec::new());
    argv.option("-name", &spec.id);
    argv.option("-M", "microvm,acpi=off,pit=on,pic=on,rtc=on,isa-serial=off,memory-backend=ram");
    match params.accel {
        Accel::Kvm => argv.option("-accel", "kvm").option("-cpu", "host"),
        // A smaller buffer of translated code costs nothing measurable and saves memory.
        Accel::Tcg => argv.option("-accel", "tcg,tb-size=32").option("-cpu", "max"),
    };
    argv.option("-smp", &spec.vcpus.to_string());
    argv.option("-m", &spec.memory_mib.to_string());
    argv.option("-object", &memory(spec, params));
    for word in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        argv.0.push(word.to_owned());
    }
    argv.option("-display", "none").option("-sandbox", SANDBOX);
    argv.option("-kernel", files::KERNEL).option("-append", &kernel_arguments(spec, params));
    argv.option("-chardev", &format!("socket,id=qmp,fd={}", params.qmp)).option("-mon", "chardev=qmp,mode=control");
    argv.option("-chardev", "stdio,id=console,signal=off");
    argv.option("-chardev", &format!("socket,id=nex,fd={},server=on,wait=off", params.channel));
    // QEMU lists the slots to the kernel from the last to the first, and the kernel names drives in that order.
    let mut slots = (0..MMIO_SLOTS).rev();
    let mut device = |argv: &mut Argv, name: &str| {
        argv.option("-device", &format!("{name},bus=virtio-mmio-bus.{}", slots.next().unwrap_or_default()));
    };
    drives(&mut argv, spec, &mut device);
    device(&mut argv, "virtio-serial-device,max_ports=4");
    argv.option("-device", "virtconsole,chardev=console").option("-device", "virtserialport,chardev=nex,name=nex");
    argv.option("-object", "rng-random,id=random,filename=/dev/urandom");
    device(&mut argv, "virtio-rng-device,rng=random");
    if let (Some(nic), Some(tap)) = (&spec.nic, params.tap) {
        argv.option("-netdev", &format!("tap,id=net,fd={tap}"));
        device(&mut argv, &format!("virtio-net-device,netdev=net,mac={}", nic.mac));
    }
    if spec.balloon {
        device(&mut argv, "virtio-balloon-device,id=balloon,deflate-on-oom=on");
    }
    if params.restore {
        argv.option("-incoming", "defer");
    }
    argv.0
}

struct Argv(Vec<String>);

impl Argv {
    fn option(&mut self, option: &str, value: &str) -> &mut Self {
        self.0.extend([option.to_owned(), value.to_owned()]);
        self
    }
}

fn memory(spec: &MachineSpec, params: LaunchParams) -> String {
    let size = u64::from(spec.memory_mib) << 20;
    let path = format!("/proc/self/fd/{}", params.memory);
    json!({"qom-type": "memory-backend-file", "id": "ram", "size": size, "mem-path": path, "share": !params.restore}).to_string()
}

fn kernel_arguments(spec: &MachineSpec, params: LaunchParams) -> String {
    let clock = match (params.accel, params.tsc_khz) {
        (Accel::Tcg, Some(khz)) => format!("tsc_early_khz={khz} tsc=reliable "),
        (Accel::Tcg, None) | (Accel::Kvm, _) => String::new(),
    };
    let fixed = "console=hvc0 reboot=t panic=-1 no_timer_check";
    format!("{fixed} {clock}root=/dev/vda ro {}", spec.boot_args).trim_end().to_owned()
}

fn drives(argv: &mut Argv, spec: &MachineSpec, device: &mut impl FnMut(&mut Argv, &str)) {
    if let Some(limiter) = &spec.drive_limiter {
        argv.option("-object", &throttle_group(limiter));
    }
    let names = (0..spec.drives.len()).map(|slot| (drive_node(slot), files::drive(slot)));
    for (node, file) in std::iter::once(("root".to_owned(), files::ROOT.to_owned())).chain(names) {
        argv.option("-blockdev", &file_node(&file_node_name(&node, 0), &file, spec.drive_limiter.is_some()).to_string());
        argv.option("-blockdev", &raw_node(&node, 0).to_string());
        device(argv, &format!("virtio-blk-device,drive={node}"));
    }
}

/// Name of the node that a drive's device reads; it never changes.
pub(super) fn drive_node(slot: usize) -> String {
    format!("drive{slot}")
}

/// Name of the node that a drive's bytes come from, a new one for each image.
pub(super) fn file_node_name(node: &str, generation: u32) -> String {
    format!("{node}-{generation}")
}

/// The node of an image; where drives are limited, with the limiter around it.
pub(super) fn file_node(name: &str, file: &str, limited: bool) -> serde_json::Value {
    if limited {
        let inner = json!({"driver": "file", "filename": file, "read-only": true});
        json!({"driver": "throttle", "node-name": name, "throttle-group": "drives", "read-only": true, "file": inner})
    } else {
        json!({"driver": "file", "node-name": name, "filename": file, "read-only": true})
    }
}

/// The node between a device and its current image.
pub(super) fn raw_node(node: &str, generation: u32) -> serde_json::Value {
    json!({"driver": "raw", "node-name": node, "read-only": true, "file": file_node_name(node, generation)})
}

/// All drives of a machine share one limit of bytes and one of operations; bursts may be as large as the bucket.
fn throttle_group(limiter: &RateLimiter) -> String {
    let mut limits = serde_json::Map::new();
    for (kind, bucket) in [("bps", limiter.bandwidth), ("iops", limiter.ops)] {
        if let Some(TokenBucket { size, refill_time_ms, .. }) = bucket {
            let rate = (size.saturating_mul(1000) / refill_time_ms.max(1)).clamp(1, 1_000_000_000_000);
            limits.insert(format!("{kind}-total"), rate.into());
            limits.insert(format!("{kind}-total-max"), size.clamp(rate, 1_000_000_000_000).into());
        }
    }
    json!({"qom-type": "throttle-group", "id": "drives", "limits": limits}).to_string()
}
