//! MicroVMs on this host: which monitors there are, where their files lie, and whether a machine really boots.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nex_network::{CniConfig, MissingRequirement, Network, NetworkConfig, NetworkError, NetworkKind, Rate};
use nex_process::Deadline;
use nex_protocol::guest::GuestLimits;
use nex_sandbox::CreateError;
use nex_sandbox::microvm::{MicroVmConfig, MicroVmProvider, OpenError};
use nex_vmm::{Firecracker, Jailer, Qemu, RateLimiter, Vmm, VmmKind};

use super::{Host, SWEEP, UID_BASE, network, short};
use crate::config::{NodeConfig, RawCni, SandboxChoice};

/// Longest time until the first machine is proved, unless the configuration says otherwise: with real processors, where it takes a second
/// and on a slow host ten, and emulated.
const BOOT: Duration = Duration::from_secs(20);
const BOOT_EMULATED: Duration = Duration::from_secs(60);
/// Longest time to make the network.
const NETWORK: Duration = Duration::from_secs(15);
/// Inside a guest its agent has this uid, and so has the workload.
const GUEST_UID: u32 = 1000;
const OPEN_FILES: u64 = 4096;
const FILE_BYTES: u64 = 1 << 30;
/// Where CNI configuration and plug-ins lie as a rule.
const CNI_CONFIGURATION: &str = "/etc/cni/conf.d";
const CNI_PLUGINS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// What executes the guests' instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// The processor.
    Kvm,
    /// A program.
    Emulation,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Emulation => "emulation",
        })
    }
}

/// A monitor that is there and may work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub kind: VmmKind,
    /// On what.
    pub accel: Accel,
    /// The program.
    pub binary: PathBuf,
    /// Firecracker's jailer, if it is to be used.
    pub jailer: Option<PathBuf>,
}

impl Candidate {
    /// Whether its machines hold a hostile workload: by the processor, and with the monitor in a jail behind it.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.accel == Accel::Kvm && self.jailer.is_some()
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.kind, self.accel, self.binary.display())
    }
}

/// Why no machine of a candidate works, in one line.
#[derive(Debug, thiserror::Error)]
pub enum NoMachines {
    /// Its files, or its first machine.
    #[error("{}", nex_protocol::envelope::chain(.0))]
    Open(#[from] OpenError),
    /// Its network.
    #[error("{}", nex_protocol::envelope::chain(.0))]
    Network(#[from] NetworkError),
}

impl NoMachines {
    /// Whether a machine was started and no guest came up in it: the host's processors are no good for guests, most likely.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Open(OpenError::FirstMachine(CreateError::NotUp { .. } | CreateError::Died(_))))
    }
}

/// The kernel and the root image that a node of this configuration uses.
#[must_use]
pub fn resources(config: &NodeConfig, resource_dir: &Path) -> (PathBuf, PathBuf) {
    let dir = config.microvm.resource_dir.as_deref().unwrap_or(resource_dir);
    let file = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| dir.join(name));
    (file(&config.microvm.kernel, "vmlinux"), file(&config.microvm.rootfs, "rootfs.img"))
}

/// The monitors worth a try, best first. What is missing is said in `reasons`.
pub fn vmm_candidates(config: &NodeConfig, resource_dir: &Path, reasons: &mut Vec<String>) -> Vec<Candidate> {
    let (kernel, rootfs) = resources(config, resource_dir);
    for (what, path) in [("kernel", &kernel), ("root image", &rootfs)] {
        if !path.is_file() {
            reasons.push(format!("there is no {what} at {}", path.display()));
            return Vec::new();
        }
    }
    let own = config.microvm.resource_dir.as_deref().unwrap_or(resource_dir).join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = config.bin_path.iter().cloned().chain([own]).chain(std::env::split_paths(&path)).collect();
    let find = |name: &str| dirs.iter().map(|dir| dir.join(name)).find(|file| file.is_file());
    let has_kvm = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let mut candidates = Vec::new();
    if config.sandbox != SandboxChoice::Qemu {
        match (find("firecracker"), &has_kvm) {
            (Some(binary), Ok(_)) => {
                let jailed = config.microvm.jailer && nix::unistd::geteuid().is_root();
                let jailer = if jailed { find("jailer") } else { None };
                if jailed && jailer.is_none() {
                    let instead = "firecracker runs as a user of its own, but in no chroot; next: install it beside firecracker";
                    reasons.push(format!("jailer: the program was not found: {instead}"));
                }
                candidates.push(Candidate { kind: VmmKind::Firecracker, accel: Accel::Kvm, binary, jailer });
            }
            (Some(_), Err(error)) => reasons.push(format!("firecracker: /dev/kvm cannot be used: {error}")),
            (None, _) => reasons.push("firecracker: the program was not found".to_owned()),
        }
    }
    if config.sandbox != SandboxChoice::Firecracker {
        match find(&format!("qemu-system-{}", std::env::consts::ARCH)) {
            Some(binary) => {
                let with = |accel| Candidate { kind: VmmKind::Qemu, accel, binary: binary.clone(), jailer: None };
                candidates.extend(has_kvm.is_ok().then(|| with(Accel::Kvm)));
                candidates.push(with(Accel::Emulation));
            }
            None => reasons.push(format!("qemu: the program qemu-system-{} was not found", std::env::consts::ARCH)),
        }
    }
    candidates
}

/// Makes the network, boots the first machine; a candidate that fails leaves nothing behind. Returns how long machines take to boot, too.
pub(super) async fn open(
    config: &NodeConfig,
    host: Host<'_>,
    candidate: &Candidate,
) -> Result<(MicroVmProvider, Duration), NoMachines> {
    let network = network_config(config, host, candidate.kind);
    let (owner, state_dir) = (network.owner.clone(), network.state_dir.clone());
    let network = Network::open(network, Deadline::after(NETWORK)).await?;
    let (kernel, rootfs) = resources(config, host.resource_dir);
    let limits = &config.workload_limits;
    let machines = MicroVmConfig {
        node: short(host.node),
        state_dir: host.state_dir.to_owned(),
        uid_base: UID_BASE,
        kernel,
        rootfs,
        size: config.microvm.template,
        limits: GuestLimits {
            uid: GUEST_UID,
            processes: limits.processes,
            open_files: OPEN_FILES,
            file_bytes: FILE_BYTES,
            tmp_bytes: limits.tmp_bytes,
        },
        rates: config.microvm.rates.filter(|_| candidate.kind == VmmKind::Firecracker),
        dns: config.microvm.network.dns.clone(),
        snapshots: config.microvm.snapshots,
    };
    let provider = match MicroVmProvider::open(machines, vmm(candidate), network) {
        Ok(provider) => provider,
        Err(error) => {
            nex_network::remove_leftovers(&owner, &state_dir, Deadline::after(SWEEP)).await;
            return Err(error.into());
        }
    };
    // Names and addresses that an earlier process left would stand in the way of the first machine.
    provider.sweep(Deadline::after(SWEEP)).await;
    let longest = if candidate.accel == Accel::Kvm { BOOT } else { BOOT_EMULATED };
    match provider.probe(Deadline::after(config.microvm.boot_timeout.unwrap_or(longest))).await {
        Ok(boot) => Ok((provider, boot)),
        Err(error) => {
            provider.close(SWEEP).await;
            Err(error.into())
        }
    }
}

fn vmm(candidate: &Candidate) -> Arc<dyn Vmm> {
    let binary = candidate.binary.clone();
    match (candidate.kind, candidate.accel) {
        (VmmKind::Firecracker, _) => {
            let jailer = |program: &PathBuf| Jailer { binary: program.clone() };
            Arc::new(Firecracker::new(binary, candidate.jailer.as_ref().map(jailer)))
        }
        (VmmKind::Qemu, Accel::Kvm) => Arc::new(Qemu::new(binary, nex_vmm::Accel::Kvm)),
        (VmmKind::Qemu, Accel::Emulation) => Arc::new(Qemu::new(binary, nex_vmm::Accel::Tcg)),
    }
}

fn network_config(config: &NodeConfig, host: Host<'_>, kind: VmmKind) -> NetworkConfig {
    let rate = config.microvm.rates.filter(|_| kind == VmmKind::Qemu).and_then(|limiter| rate(&limiter));
    let limits = rate.map(|rate| nex_network::Limits { to_guest: Some(rate), from_guest: Some(rate) });
    network::config(config, host, network_kind(config), limits)
}

fn network_kind(config: &NodeConfig) -> NetworkKind {
    config.microvm.network.cni.as_ref().map_or(NetworkKind::Builtin, |cni| NetworkKind::Cni(cni_config(cni)))
}

/// What this host lacks for the guests' network of this configuration; looks, and changes nothing.
#[must_use]
pub fn network_lacks(config: &NodeConfig) -> Vec<MissingRequirement> {
    nex_network::check(&network_kind(config))
}

fn rate(limiter: &RateLimiter) -> Option<Rate> {
    let bucket = limiter.bandwidth?;
    let bytes_per_second = bucket.size.saturating_mul(1000) / bucket.refill_time_ms.max(1);
    Some(Rate { bytes_per_second, burst_bytes: bucket.size })
}

fn cni_config(cni: &RawCni) -> CniConfig {
    let mut bin_path: Vec<PathBuf> = cni.bin_path.clone().unwrap_or_default();
    bin_path.extend(CNI_PLUGINS.map(PathBuf::from));
    bin_path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    CniConfig {
        network_name: cni.network_name.clone().unwrap_or_else(|| "fcnet".to_owned()),
        interface_name: cni.interface_name.clone().unwrap_or_else(|| "veth0".to_owned()),
        bin_path,
        conf_dir: CNI_CONFIGURATION.into(),
        nameservers: cni.nameservers.iter().flatten().filter_map(|text| text.parse().ok()).collect(),
    }
}
