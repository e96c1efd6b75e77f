//! Settings of microVMs: the choice of sandbox, machines and their classes, files, network, rates.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use nex_network::{Allow, Ipv4Net};
use nex_sandbox::MachineSize;
use nex_vmm::{RateLimiter, TokenBucket};

use super::raw::{RawConfig, RawMachine};
use super::raw_microvm::{RawBucket, RawCni, RawRateLimiters};

/// Upper bound on a guest's memory, MiB.
const MAX_MEMORY_MIB: u64 = 1024 * 1024;
/// Kernel and agent do not start with less memory, MiB.
const MIN_MEMORY_MIB: u64 = 96;
const DEFAULT_SUBNET: &str = "192.168.127.0/24";
/// Firecracker's own limit.
const MAX_VCPUS: u32 = 32;

/// Which sandbox agents get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxChoice {
    /// The best that works on this host: Firecracker, QEMU, jailed processes.
    Auto,
    /// Jailed processes.
    Process,
    /// Firecracker or nothing.
    Firecracker,
    /// QEMU or nothing.
    Qemu,
}

/// A class of machines and how many of it are kept ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineClass {
    /// Its size.
    pub size: MachineSize,
    /// Machines kept ready.
    pub pool_size: usize,
}

/// Settings of microVMs; used only when they are selected.
#[derive(Debug, Clone)]
pub struct MicroVmConfig {
    /// Whether the configuration mentions machines, so that running without them deserves a warning.
    pub expected: bool,
    /// The machine of a deploy that asks for no class.
    pub template: MachineSize,
    /// Classes that a deploy may ask for, by name.
    pub classes: BTreeMap<String, MachineClass>,
    /// The kernel, if not `vmlinux` in the resource directory.
    pub kernel: Option<PathBuf>,
    /// The root image, if not `rootfs.img` in the resource directory.
    pub rootfs: Option<PathBuf>,
    /// Where kernel, root image and programs lie, if not in the user's data directory.
    pub resource_dir: Option<PathBuf>,
    /// Longest time to boot the first machine; depends on the kind of processors if absent.
    pub boot_timeout: Option<Duration>,
    /// Whether machines are cloned from a snapshot of the first one.
    pub snapshots: bool,
    /// Whether Firecracker runs in its jailer, where that is installed and the node is root.
    pub jailer: bool,
    /// Rates of each guest's network (each way) and drives.
    pub rates: Option<RateLimiter>,
    /// The network.
    pub network: GuestNetworkConfig,
}

/// How guests are connected, and what they may reach.
#[derive(Debug, Clone, Default)]
pub struct GuestNetworkConfig {
    /// Through CNI plug-ins instead of the built-in network.
    pub cni: Option<RawCni>,
    /// Subnet of the guests; a free one if absent.
    pub subnet: Option<Ipv4Net>,
    /// The host's address in it.
    pub gateway: Option<Ipv4Addr>,
    /// What guests may reach.
    pub allow: Vec<Allow>,
    /// Ports of the host's loopback that guests reach on the gateway.
    pub host_ports: Vec<u16>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
}

/// Resolves the choice of sandbox.
pub(super) fn sandbox(raw: &RawConfig, problems: &mut Vec<String>) -> SandboxChoice {
    let no_sandbox = raw.no_sandbox.unwrap_or_default();
    match raw.sandbox.as_deref() {
        Some(vm @ ("firecracker" | "qemu")) if no_sandbox => {
            problems.push(format!("sandbox '{vm}' and no_sandbox contradict each other; next: take one of them out"));
            SandboxChoice::Process
        }
        Some("process") => SandboxChoice::Process,
        Some("auto") | None if no_sandbox => SandboxChoice::Process,
        Some("auto") | None => SandboxChoice::Auto,
        Some("firecracker") => SandboxChoice::Firecracker,
        Some("qemu") => SandboxChoice::Qemu,
        Some(other) => {
            problems.push(format!("sandbox '{other}' is unknown: expected auto, process, firecracker or qemu"));
            SandboxChoice::Process
        }
    }
}

impl MicroVmConfig {
    pub(super) fn resolve(raw: &RawConfig, problems: &mut Vec<String>) -> Self {
        let machine = raw.machine_template.unwrap_or_default();
        let template = size("machine_template", machine, problems);
        let classes = raw.machine_classes.iter().flatten().map(|(name, class)| {
            if name.is_empty() || name.len() > 32 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
                problems.push(format!("machine_classes: '{name}' is no name: use 1 to 32 letters, digits, '-' and '_'"));
            }
            let pool_size = class.pool_size.unwrap_or(0);
            if pool_size > 1_000 {
                problems.push(format!("machine_classes.{name}: pool_size {pool_size} is over 1000"));
            }
            let given = RawMachine { vcpu_count: class.vcpu_count, memsize_mib: class.memsize_mib };
            let size = size(&format!("machine_classes.{name}"), given, problems);
            (name.clone(), MachineClass { size, pool_size })
        });
        let classes = classes.collect();
        let expected = raw.sandbox.is_some()
            || raw.cni.is_some()
            || raw.machine_template.is_some()
            || raw.machine_classes.is_some()
            || raw.kernel_filepath.is_some()
            || raw.rootfs_filepath.is_some();
        Self {
            expected,
            template,
            classes,
            kernel: raw.kernel_filepath.clone().or_else(|| raw.kernel_path.clone()),
            rootfs: raw.rootfs_filepath.clone().or_else(|| raw.rootfs_path.clone()),
            resource_dir: raw.default_resource_dir.clone(),
            boot_timeout: raw.boot_timeout_ms.filter(|ms| *ms > 0).map(Duration::from_millis),
            snapshots: raw.snapshots.unwrap_or(true),
            jailer: raw.jailer.unwrap_or(true),
            rates: raw.rate_limiters.and_then(|rates| rates.resolve(problems)),
            network: GuestNetworkConfig::resolve(raw, problems),
        }
    }
}

fn size(what: &str, given: RawMachine, problems: &mut Vec<String>) -> MachineSize {
    let (vcpus, memory) = (given.vcpu_count.unwrap_or(1), given.memsize_mib.unwrap_or(256));
    if !(1..=MAX_VCPUS).contains(&vcpus) {
        problems.push(format!("{what}.vcpu_count {vcpus} is not between 1 and {MAX_VCPUS}"));
    }
    if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&memory) {
        problems.push(format!("{what}.memsize_mib {memory} is not between {MIN_MEMORY_MIB} and {MAX_MEMORY_MIB}"));
    }
    MachineSize { vcpus: u8::try_from(vcpus).unwrap_or(1), memory_mib: u32::try_from(memory).unwrap_or(256) }
}

impl RawRateLimiters {
    fn resolve(self, problems: &mut Vec<String>) -> Option<RateLimiter> {
        let mut bucket = |name: &str, raw: Option<RawBucket>| {
            let RawBucket { one_time_burst, refill_time, size } = raw?;
            if (size == 0) != (refill_time == 0) {
                problems.push(format!("rate_limiters.{name}: size and refill_time are both 0 (no limit) or both above it"));
            }
            // As in 0.2.7 and in Firecracker, zeros mean no limit.
            if size == 0 || refill_time == 0 {
                return None;
            }
            Some(TokenBucket { size, refill_time_ms: refill_time, one_time_burst })
        };
        let (bandwidth, ops) = (bucket("bandwidth", self.bandwidth), bucket("iops", self.iops));
        (bandwidth.is_some() || ops.is_some()).then_some(RateLimiter { bandwidth, ops })
    }
}

impl GuestNetworkConfig {
    fn resolve(raw: &RawConfig, problems: &mut Vec<String>) -> Self {
        let network = raw.network.clone().unwrap_or_default();
        let written = raw.cni.as_ref().and_then(|cni| cni.subnet.clone()).or(network.subnet);
        // As in 0.2.7, where the network of a configuration that names none is this one.
        let fixed = raw.cni.is_some() || raw.internal_node_host.is_some();
        let written = written.or_else(|| fixed.then(|| DEFAULT_SUBNET.to_owned()));
        let subnet: Option<Ipv4Net> = written.and_then(|text| parse("subnet", &text, problems));
        let gateway: Option<Ipv4Addr> =
            raw.internal_node_host.as_ref().and_then(|text| parse("internal_node_host", text, problems));
        if let (Some(subnet), Some(gateway)) = (&subnet, gateway)
            && !subnet.contains(&gateway)
        {
            problems.push(format!("internal node host must be in the CNI subnet: {gateway} is not in {subnet}"));
        }
        let names = raw.cni.as_ref().and_then(|cni| cni.nameservers.clone()).into_iter().chain(network.dns).flatten();
        let dns: Vec<IpAddr> = names.filter_map(|text| parse("name server", &text, problems)).collect();
        let allow = network.allow.unwrap_or_else(|| vec!["internet".to_owned()]);
        let mut allow: Vec<Allow> = allow.iter().filter_map(|text| destination(text, problems)).collect();
        // A configured name server must be reachable.
        allow.extend(dns.iter().filter_map(|server| match server {
            IpAddr::V4(server) => Some(Allow::Net { net: Ipv4Net::from(*server), port: Some(53) }),
            IpAddr::V6(_) => None,
        }));
        let host_ports = network.host_ports.unwrap_or_default();
        if host_ports.contains(&0) {
            problems.push("network.host_ports: 0 is no port".to_owned());
        }
        Self { cni: raw.cni.clone(), subnet, gateway, allow, host_ports, dns }
    }
}

/// `internet`, a net, an address, or either of them and a port.
fn destination(text: &str, problems: &mut Vec<String>) -> Option<Allow> {
    if text == "internet" {
        return Some(Allow::Internet);
    }
    let (net, port) = match text.rsplit_once(':') {
        Some((net, port)) => (net, Some(parse("network.allow", port, problems)?)),
        None => (text, None),
    };
    match net.parse::<Ipv4Net>().ok().or_else(|| net.parse::<Ipv4Addr>().ok().map(Ipv4Net::from)) {
        Some(net) => Some(Allow::Net { net, port }),
        None => {
            problems
                .push(format!("network.allow: '{text}': expected internet, an IPv4 net or address, or one of those and :port"));
            None
        }
    }
}

fn parse<T: std::str::FromStr>(what: &str, text: &str, problems: &mut Vec<String>) -> Option<T>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| problems.push(format!("{what}: '{text}': {error}"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<MicroVmConfig, Vec<String>> {
        let mut problems = Vec::new();
        let config = MicroVmConfig::resolve(&RawConfig::parse(text).unwrap(), &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    #[test]
    fn the_configuration_of_the_seed_documents_means_one_small_machine_on_its_network() {
        let config = resolve(
            r#"{"default_resource_dir":"/tmp/nex","machine_pool_size":1,"internal_node_host":"192.168.127.1",
            "cni":{"network_name":"fcnet","interface_name":"veth0","subnet":"192.168.127.0/24"},
            "machine_template":{"vcpu_count":1,"memsize_mib":256}}"#,
        )
        .unwrap();
        assert_eq!(config.template, MachineSize { vcpus: 1, memory_mib: 256 });
        assert_eq!(config.network.gateway, Some(Ipv4Addr::new(192, 168, 127, 1)));
        assert!(config.snapshots && config.network.cni.is_some() && config.rates.is_none());
    }

    #[test]
    fn an_invalid_setting_is_refused_by_name() {
        for (text, part) in [
            (r#"{"machine_template":{"vcpu_count":0}}"#, "vcpu_count"),
            (r#"{"machine_classes":{"large":{"memsize_mib":4}}}"#, "machine_classes.large.memsize_mib"),
            (r#"{"machine_classes":{"a b":{}}}"#, "is no name"),
            (r#"{"rate_limiters":{"bandwidth":{"size":0,"refill_time":1}}}"#, "rate_limiters.bandwidth"),
            (r#"{"cni":{"subnet":"10.0.0.0/24"},"internal_node_host":"10.0.1.1"}"#, "must be in the CNI subnet"),
            (r#"{"network":{"allow":["nowhere"]}}"#, "network.allow"),
            (r#"{"network":{"dns":["one"]}}"#, "name server"),
        ] {
            let problems = resolve(text).unwrap_err();
            assert!(problems.len() == 1 && problems[0].contains(part), "{problems:?}");
        }
    }

    #[test]
    fn a_name_server_is_reachable() {
        let config = resolve(r#"{"network":{"allow":[],"dns":["9.9.9.9"]}}"#).unwrap();
        assert_eq!(config.network.allow.len(), 1);
    }
}
