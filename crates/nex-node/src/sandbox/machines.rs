//! MicroVMs on this host: finds monitors and their files, and checks that a machine boots.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nex_network::{CniConfig, MissingRequirement, Network, NetworkConfig, NetworkError, NetworkKind, Rate};
use nex_process::Deadline;
use nex_protocol::guest::GuestLimits;
use nex_sandbox::microvm::{MicroVmConfig, MicroVmProvider, OpenError};
use nex_sandbox::{CreateError, SandboxId};
use nex_vmm::{Firecracker, Jailer, Qemu, RateLimiter, Vmm, VmmKind};

use super::candidate::{Accel, Candidate};
use super::host::{Host, SWEEP, UID_BASE, short};
use super::network;
use super::probe_cache::{self, ProbeCache};
use crate::config::{NodeConfig, RawCni, SandboxChoice};

/// Longest time to boot the first machine, unless configured: on KVM, where it takes one second and on a slow host ten, and emulated.
const BOOT: Duration = Duration::from_secs(20);
const BOOT_EMULATED: Duration = Duration::from_secs(60);
/// Longest time to make the network.
const NETWORK: Duration = Duration::from_secs(15);
/// Uid of the agent and its workload inside a guest.
const GUEST_UID: u32 = 1000;
const OPEN_FILES: u64 = 4096;
const FILE_BYTES: u64 = 1 << 30;
/// The usual directories of CNI configuration and plug-ins.
const CNI_CONFIGURATION: &str = "/etc/cni/conf.d";
const CNI_PLUGINS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// Why a candidate's machines do not work, in one line.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Its files, or its first machine.
    #[error("{}", nex_protocol::envelope::chain(.0))]
    Open(#[from] OpenError),
    /// Its network.
    #[error("{}", nex_protocol::envelope::chain(.0))]
    Network(#[from] NetworkError),
}

impl ProbeError {
    /// Whether a machine started but its guest did not come up: most likely this host cannot run guests.
    fn is_boot_timeout(&self) -> bool {
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

/// Tries the candidates in turn, except those known to fail; spares what was left running.
pub(super) async fn first_that_works(
    config: &NodeConfig,
    host: Host<'_>,
    left: &BTreeSet<SandboxId>,
    reasons: &mut Vec<String>,
) -> Option<(MicroVmProvider, Candidate, Duration)> {
    let (kernel, rootfs) = resources(config, host.resource_dir);
    let mut cache = ProbeCache::load(host.state_dir);
    let candidates = vmm_candidates(config, host.resource_dir, reasons);
    if !candidates.is_empty() {
        tracing::info!("Virtual machine manager starting");
    }
    for candidate in candidates {
        if config.sandbox == SandboxChoice::Auto && candidate.accel == Accel::Emulation {
            // QEMU's own policy calls its emulator no security boundary, and it runs in no jail here.
            let instead = "next: say \"sandbox\": \"qemu\" to have it all the same";
            reasons.push(format!("{candidate}: an emulator holds no hostile guest, and is slow; {instead}"));
            continue;
        }
        let key = probe_cache::key(&candidate, &[&kernel, &rootfs]);
        // If only Firecracker is allowed, try it even if it is known to fail.
        let known = cache.get(&key).filter(|_| config.sandbox != SandboxChoice::Firecracker);
        if let Some(why) = known {
            reasons.push(format!("{candidate}: {why}"));
            continue;
        }
        match Box::pin(open(config, host, left, &candidate)).await {
            Ok((provider, boot)) => return Some((provider, candidate, boot)),
            Err(why) => {
                if candidate.accel == Accel::Kvm && why.is_boot_timeout() {
                    cache.insert(key, why.to_string());
                }
                reasons.push(format!("{candidate}: {why}"));
            }
        }
    }
    None
}

/// The monitors to try, best first; `reasons` gets what is missing.
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

/// Makes the network and boots the first machine; a failing candidate leaves nothing behind but what an earlier process left running, for
/// that may be another candidate's. Also returns the boot time.
pub(super) async fn open(
    config: &NodeConfig,
    host: Host<'_>,
    left: &BTreeSet<SandboxId>,
    candidate: &Candidate,
) -> Result<(MicroVmProvider, Duration), ProbeError> {
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
            if left.is_empty() {
                nex_network::remove_leftovers(&owner, &state_dir, Deadline::after(SWEEP)).await;
            }
            return Err(error.into());
        }
    };
    // Names and addresses left by an earlier process would conflict with the first machine.
    provider.sweep(left, Deadline::after(SWEEP)).await;
    let limit = if candidate.accel == Accel::Kvm { BOOT } else { BOOT_EMULATED };
    match provider.probe(left, Deadline::after(config.microvm.boot_timeout.unwrap_or(limit))).await {
        Ok(boot) => Ok((provider, boot)),
        Err(error) => {
            provider.leave(left, SWEEP).await;
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

/// What this host lacks for the configured guests' network; changes nothing.
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
