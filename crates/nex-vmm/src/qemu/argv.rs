//! What QEMU is told on its command line: a pure function, held by golden files.
//!
//! The machine is `microvm` without ACPI: the kernel finds its devices by arguments that QEMU adds. Its timers are what it stands and falls
//! with: without `pit=on` a guest's clock never ticks, without `no_timer_check` some of many that boot at once give up.

use std::os::fd::RawFd;

use serde_json::json;

use super::Accel;
use crate::files;
use crate::spec::{MachineSpec, RateLimiter, TokenBucket};

/// What the command line needs beside the specification.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given {
    pub(crate) accel: Accel,
    /// Pace of the time stamp counter, for an emulated guest.
    pub(crate) tsc_khz: Option<u64>,
    /// Descriptor of one end of a stream, for commands.
    pub(crate) qmp: RawFd,
    /// Descriptor of a listening socket, for the channel.
    pub(crate) channel: RawFd,
    /// Descriptor of a file as large as the guest's memory.
    pub(crate) memory: RawFd,
    /// Descriptor of the tap, if there is a network interface.
    pub(crate) tap: Option<RawFd>,
    /// Whether the machine waits for a snapshot, of which it has a copy that is written on change.
    pub(crate) restore: bool,
}

/// Places for devices, of which [`MAX_DRIVES`](crate::MAX_DRIVES) drives, root, serial ports, random numbers, network and balloon need all.
const PLACES: usize = 8;

const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// The arguments, after the program's name.
pub(crate) fn argv(spec: &MachineSpec, given: Given) -> Vec<String> {
    let mut argv = Argv(Vec::new());
    argv.words("-name", &spec.id);
    argv.words("-M", "microvm,acpi=off,pit=on,pic=on,rtc=on,isa-serial=off,memory-backend=ram");
    match given.accel {
        Accel::Kvm => argv.words("-accel", "kvm").words("-cpu", "host"),
        // A smaller buffer of translated code costs nothing measurable and saves memory.
        Accel::Tcg => argv.words("-accel", "tcg,tb-size=32").words("-cpu", "max"),
    };
    argv.words("-smp", &spec.vcpus.to_string());
    argv.words("-m", &spec.memory_mib.to_string());
    argv.words("-object", &memory(spec, given));
    for word in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        argv.0.push(word.to_owned());
    }
    argv.words("-display", "none").words("-sandbox", SANDBOX);
    argv.words("-kernel", files::KERNEL).words("-append", &kernel_arguments(spec, given));
    argv.words("-chardev", &format!("socket,id=qmp,fd={}", given.qmp)).words("-mon", "chardev=qmp,mode=control");
    argv.words("-chardev", "stdio,id=console,signal=off");
    argv.words("-chardev", &format!("socket,id=nex,fd={},server=on,wait=off", given.channel));
    // The kernel is told of the places from the last to the first, and names drives in that order.
    let mut places = (0..PLACES).rev();
    let mut device = |argv: &mut Argv, name: &str| {
        argv.words("-device", &format!("{name},bus=virtio-mmio-bus.{}", places.next().unwrap_or_default()));
    };
    drives(&mut argv, spec, &mut device);
    device(&mut argv, "virtio-serial-device,max_ports=4");
    argv.words("-device", "virtconsole,chardev=console").words("-device", "virtserialport,chardev=nex,name=nex");
    argv.words("-object", "rng-random,id=random,filename=/dev/urandom");
    device(&mut argv, "virtio-rng-device,rng=random");
    if let (Some(nic), Some(tap)) = (&spec.nic, given.tap) {
        argv.words("-netdev", &format!("tap,id=net,fd={tap}"));
        device(&mut argv, &format!("virtio-net-device,netdev=net,mac={}", nic.mac));
    }
    if spec.balloon {
        device(&mut argv, "virtio-balloon-device,id=balloon,deflate-on-oom=on");
    }
    if given.restore {
        argv.words("-incoming", "defer");
    }
    argv.0
}

struct Argv(Vec<String>);

impl Argv {
    fn words(&mut self, option: &str, value: &str) -> &mut Self {
        self.0.extend([option.to_owned(), value.to_owned()]);
        self
    }
}

fn memory(spec: &MachineSpec, given: Given) -> String {
    let size = u64::from(spec.memory_mib) << 20;
    let path = format!("/proc/self/fd/{}", given.memory);
    json!({"qom-type": "memory-backend-file", "id": "ram", "size": size, "mem-path": path, "share": !given.restore}).to_string()
}

fn kernel_arguments(spec: &MachineSpec, given: Given) -> String {
    let clock = match (given.accel, given.tsc_khz) {
        (Accel::Tcg, Some(khz)) => format!("tsc_early_khz={khz} tsc=reliable "),
        (Accel::Tcg, None) | (Accel::Kvm, _) => String::new(),
    };
    let fixed = "console=hvc0 reboot=t panic=-1 no_timer_check";
    format!("{fixed} {clock}root=/dev/vda ro {}", spec.boot_args).trim_end().to_owned()
}

fn drives(argv: &mut Argv, spec: &MachineSpec, device: &mut impl FnMut(&mut Argv, &str)) {
    if let Some(limiter) = &spec.drive_limiter {
        argv.words("-object", &throttle_group(limiter));
    }
    let names = (0..spec.drives.len()).map(|slot| (drive_node(slot), files::drive(slot)));
    for (node, file) in std::iter::once(("root".to_owned(), files::ROOT.to_owned())).chain(names) {
        argv.words("-blockdev", &file_node(&file_node_name(&node, 0), &file, spec.drive_limiter.is_some()).to_string());
        argv.words("-blockdev", &raw_node(&node, 0).to_string());
        device(argv, &format!("virtio-blk-device,drive={node}"));
    }
}

/// Name of the node that a drive's device reads, for ever.
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

/// The node between a device and whatever image it has now.
pub(super) fn raw_node(node: &str, generation: u32) -> serde_json::Value {
    json!({"driver": "raw", "node-name": node, "read-only": true, "file": file_node_name(node, generation)})
}

/// All drives of a machine share one allowance each of bytes and operations; it may be used in a burst as large as the bucket.
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
