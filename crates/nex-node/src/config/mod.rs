//! A node's configuration: resolves the file ([`RawConfig`]) to typed settings ([`NodeConfig`]) and reports all problems at once.

mod http;
mod isolation;
mod limits;
mod live;
mod microvm;
mod quota;
mod raw;
mod raw_microvm;
mod servers;
mod service_credentials;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nex_http::HttpConfig;
use nex_process::confinement::Part;
use nex_protocol::control::Tags;
use nex_protocol::deploy::WorkloadType;
use nex_protocol::id::{Namespace, is_public_key};
use nex_protocol::subject;

use crate::quota::Quotas;

pub use isolation::{IsolationConfig, IsolationRefusal, RawIsolation};
pub use limits::WorkloadLimits;
pub use live::{LiveConfig, RELOADED};
pub use microvm::{GuestNetworkConfig, MachineClass, MicroVmConfig, SandboxChoice};
pub use quota::{RawQuota, RawQuotas};
pub use raw::{RawAutostartWorkload, RawConfig, RawHostService, RawHostServices, RawHttp, ReadError};
pub use raw_microvm::RawCni;
pub use servers::ServerList;
pub(crate) use service_credentials::expand;
pub use service_credentials::{RawServiceCredentials, RawServicePermissions, ServiceCredentialsConfig, ServicePermissions};

use raw::RawLimits;

/// A configuration with every value typed and bounded.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Tags the operator gave; the node's own come on top.
    pub tags: Tags,
    /// Which sandbox agents get.
    pub sandbox: SandboxChoice,
    /// MicroVM settings; used only when selected.
    pub microvm: MicroVmConfig,
    /// Workload types this node accepts.
    pub workload_types: Vec<WorkloadType>,
    /// Agents kept ready.
    pub pool_size: usize,
    /// Longest time from the creation of an agent to its handshake; depends on the kind of sandbox if absent.
    pub handshake_timeout: Option<Duration>,
    /// Longest time an agent may take to answer a ping; three misses in a row and it is lost.
    pub ping_timeout: Duration,
    /// Bytes of artifacts kept for the next deploy; those in use are kept beyond it.
    pub artifact_cache_bytes: u64,
    /// Bytes kept of log lines and events.
    pub history_bytes: u64,
    /// Longest time of a deploy, from the request to running; by the kind of sandbox if absent.
    pub deploy_timeout: Option<Duration>,
    /// Time a workload has to end by itself when it is stopped.
    pub stop_grace: Duration,
    /// Bounds on the node.
    pub node_limits: NodeLimits,
    /// What the node, namespaces and issuers may have.
    pub quotas: Quotas,
    /// Bounds on each workload.
    pub workload_limits: WorkloadLimits,
    /// How far workloads are kept apart.
    pub isolation: IsolationConfig,
    /// Issuers allowed; everybody if empty.
    pub valid_issuers: Vec<String>,
    /// Keys that may stop what others have started.
    pub operators: Vec<String>,
    /// Subjects no trigger may overlap, besides those that are reserved anyway.
    pub deny_triggers: Vec<String>,
    /// The triggers of each namespace, where the operator hands them out; a namespace that is not named has none.
    pub allow_triggers: Option<BTreeMap<String, Vec<String>>>,
    /// Servers that a deployer may have workloads connected to, besides the node's own.
    pub workload_servers: ServerList,
    /// Extra demands on deploys.
    pub demands: Demands,
    /// Whether functions may subscribe on the node's servers without credentials although the node has some: that is how the embedded
    /// server of `nex up` is set up.
    pub anonymous_functions: bool,
    /// Parts of the confinement that must not be missing.
    pub require: Vec<Part>,
    /// Parts that may be missing even where the node is root.
    pub waive: Vec<Part>,
    /// Directories in which `nex-agent` is looked for first.
    pub bin_path: Vec<PathBuf>,
    /// Where state is kept, if not in the user's data directory.
    pub state_dir: Option<PathBuf>,
    /// Where this process writes its pid.
    pub pid_file: Option<PathBuf>,
    /// Port of the internal bus; any free one if absent.
    pub bus_port: Option<u16>,
    /// A listener for HTTP, if there is one.
    pub http: Option<HttpConfig>,
    /// Host services.
    pub host_services: RawHostServices,
    /// Users of NATS that the node makes for services, if it does.
    pub service_credentials: Option<ServiceCredentialsConfig>,
    /// Workloads to start with the node.
    pub autostart: Vec<RawAutostartWorkload>,
    /// Whether to forget what an earlier process of the node was to go on with.
    pub fresh: bool,
    /// Warnings about settings that have no effect, for the log.
    pub warnings: Vec<String>,
}

/// Demands on deploys and stops that clients of 0.2.7 cannot meet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demands {
    /// Claims with the artifact's digest.
    pub digest: bool,
    /// Claims that are good for one request on one node only.
    pub bound_claims: bool,
    /// Environments that were sealed for the very deploy.
    pub bound_environment: bool,
}

impl Demands {
    /// Their names, as they stand in the node's tags; nothing if there are none.
    #[must_use]
    pub fn names(self) -> Option<String> {
        let all = [(self.digest, "digest"), (self.bound_claims, "bound_claims"), (self.bound_environment, "bound_environment")];
        let names: Vec<&str> = all.into_iter().filter(|(demanded, _)| *demanded).map(|(_, name)| name).collect();
        (!names.is_empty()).then(|| names.join(","))
    }
}

/// Bounds on the node as a whole; absent means unbounded.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeLimits {
    /// Workloads at once.
    pub workloads: Option<usize>,
    /// Bytes of all artifacts of running workloads together.
    pub total_bytes: Option<u64>,
    /// Bytes of one artifact.
    pub workload_bytes: Option<u64>,
}

impl NodeLimits {
    /// As in 0.2.7, 0 means none.
    fn of(raw: RawLimits) -> Self {
        let positive = |value: Option<u64>| value.filter(|value| *value > 0);
        Self {
            workloads: raw.max_workloads.filter(|max| *max > 0),
            total_bytes: positive(raw.max_total_bytes),
            workload_bytes: positive(raw.max_workload_bytes),
        }
    }
}

/// Every problem of a configuration at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the node configuration cannot be used:\n  - {}; next: correct that, and try it with `nex node preflight`", .0.join("\n  - "))]
pub struct Invalid(pub Vec<String>);

const MIB: u64 = 1024 * 1024;
/// MiB kept of log lines and events where nothing is said, and at most.
const HISTORY_MIB: u64 = 64;
const MAX_HISTORY_MIB: u64 = 1024 * 1024;
/// Most namespaces whose host services have a connection of their own.
const MAX_NAMESPACES: usize = 256;

impl NodeConfig {
    /// Resolves every field.
    ///
    /// # Errors
    /// [`Invalid`], with all that is wrong.
    pub fn resolve(raw: RawConfig) -> Result<Self, Invalid> {
        let mut problems = Vec::new();
        let warnings = cannot_work_yet(&raw);
        let workload_types = workload_types(&raw, &mut problems);
        let sandbox = microvm::sandbox(&raw, &mut problems);
        let microvm = MicroVmConfig::resolve(&raw, &mut problems);
        check_names(&raw, &mut problems);
        let pool_size = pool_size(&raw, &mut problems);
        check_numbers(&raw, &mut problems);
        let workload_limits = limits::resolve(&raw, &mut problems);
        let quotas = quota::resolve(&raw, &workload_limits, &mut problems);
        let http = raw.http.as_ref().and_then(|raw| http::resolve(raw, &mut problems));
        let isolation = IsolationConfig::resolve(raw.isolation.unwrap_or_default(), &mut problems);
        let workload_servers = ServerList::new(raw.allow_nats_urls.iter().flatten(), &mut problems);
        let service_credentials = raw.service_credentials.and_then(|raw| service_credentials::resolve(raw, &mut problems));
        if !problems.is_empty() {
            return Err(Invalid(problems));
        }
        let millis = |value: Option<u64>, default: u64| Duration::from_millis(value.filter(|v| *v > 0).unwrap_or(default));
        Ok(Self {
            tags: raw.tags.unwrap_or_default(),
            sandbox,
            microvm,
            workload_types,
            pool_size,
            handshake_timeout: raw.agent_handshake_timeout_ms.filter(|ms| *ms > 0).map(Duration::from_millis),
            ping_timeout: millis(raw.agent_ping_timeout_ms, 750),
            artifact_cache_bytes: raw.artifact_cache_mib.unwrap_or(4_096).saturating_mul(MIB),
            history_bytes: raw.history_mib.unwrap_or(HISTORY_MIB).saturating_mul(MIB),
            deploy_timeout: raw.deploy_timeout_ms.filter(|ms| *ms > 0).map(Duration::from_millis),
            stop_grace: millis(raw.stop_grace_ms, 5_000),
            node_limits: NodeLimits::of(raw.node_limits.unwrap_or_default()),
            quotas,
            workload_limits,
            isolation,
            valid_issuers: raw.valid_issuers.unwrap_or_default(),
            operators: raw.operators.unwrap_or_default(),
            deny_triggers: raw.deny_trigger_subjects.unwrap_or_default(),
            allow_triggers: raw.allow_trigger_subjects,
            workload_servers,
            demands: Demands {
                digest: raw.require_digest.unwrap_or_default(),
                bound_claims: raw.require_bound_claims.unwrap_or_default(),
                bound_environment: raw.require_bound_environment.unwrap_or_default(),
            },
            anonymous_functions: false,
            fresh: false,
            require: raw.require.unwrap_or_default(),
            waive: raw.waive.unwrap_or_default(),
            bin_path: raw.bin_path.unwrap_or_default(),
            state_dir: raw.state_dir,
            pid_file: raw.pid_filepath,
            bus_port: raw.internal_node_port,
            http,
            host_services: raw.host_services.unwrap_or_default(),
            service_credentials,
            autostart: raw.autostart.unwrap_or_default().workloads,
            warnings,
        })
    }
}

impl NodeConfig {
    /// The layers of a jailed process without which the node does not start. Root can have them all, so what is missing is named
    /// by the operator or not missed by accident.
    #[must_use]
    pub fn required(&self, is_root: bool) -> Vec<Part> {
        let by_default = Part::ALL.into_iter().filter(|part| is_root && !self.waive.contains(part));
        by_default.chain(self.require.iter().copied()).collect()
    }
}

impl Default for NodeConfig {
    /// What a node without a configuration file does: every type, in process sandboxes.
    fn default() -> Self {
        let raw = RawConfig {
            no_sandbox: Some(true),
            workload_types: Some(["native", "v8", "wasm", "oci"].map(str::to_owned).to_vec()),
            ..RawConfig::default()
        };
        Self::resolve(raw).unwrap_or_else(|invalid| unreachable!("{invalid}"))
    }
}

fn cannot_work_yet(raw: &RawConfig) -> Vec<String> {
    let telemetry =
        [("otel_metrics", raw.otel_metrics.unwrap_or_default()), ("otel_traces", raw.otel_traces.unwrap_or_default())];
    let telemetry = telemetry
        .into_iter()
        .filter(|(_, on)| *on)
        .map(|(name, _)| format!("{name} has no effect: this build exports no telemetry"));
    let server = raw.public_nats_server.iter().map(|_| {
        "public_nats_server has no effect: use 'nex up' for an embedded server, or run nats-server beside the node".to_owned()
    });
    telemetry.chain(server).collect()
}

fn pool_size(raw: &RawConfig, problems: &mut Vec<String>) -> usize {
    let size = raw.machine_pool_size.unwrap_or(1);
    if size == 0 {
        problems.push("machine pool size must be >= 1".to_owned());
    }
    if size > 1_000 {
        problems.push(format!("machine_pool_size {size} is over 1000"));
    }
    size
}

fn workload_types(raw: &RawConfig, problems: &mut Vec<String>) -> Vec<WorkloadType> {
    let default = [WorkloadType::Native.as_str().to_owned()];
    let mut types = Vec::new();
    for text in raw.workload_types.as_deref().unwrap_or(&default) {
        match text.parse::<WorkloadType>() {
            Ok(known) if !types.contains(&known) => types.push(known),
            Ok(_) => {}
            Err(unknown) => problems.push(format!("workload_types: {unknown}")),
        }
    }
    types
}

fn check_numbers(raw: &RawConfig, problems: &mut Vec<String>) {
    if raw.history_mib.is_some_and(|mib| !(1..=MAX_HISTORY_MIB).contains(&mib)) {
        problems.push(format!("history_mib: expected 1 to {MAX_HISTORY_MIB}"));
    }
    limits::check_times(raw, problems);
}

fn check_names(raw: &RawConfig, problems: &mut Vec<String>) {
    for (name, keys) in [("valid_issuers", &raw.valid_issuers), ("operators", &raw.operators)] {
        for key in keys.iter().flatten().filter(|key| !is_public_key(key)) {
            problems.push(format!("{name}: '{key}' is not a public nkey (56 characters, A…, U…, O…)"));
        }
    }
    for pattern in raw.deny_trigger_subjects.iter().flatten().filter(|pattern| !subject::is_valid_pattern(pattern)) {
        problems.push(format!("deny_trigger_subjects: '{pattern}' is not a subject"));
    }
    for (namespace, patterns) in raw.allow_trigger_subjects.iter().flatten() {
        if namespace.parse::<Namespace>().is_err() {
            problems.push(format!("allow_trigger_subjects: '{namespace}' is not a namespace"));
        }
        for pattern in patterns.iter().filter(|pattern| !subject::is_valid_pattern(pattern)) {
            problems.push(format!("allow_trigger_subjects.{namespace}: '{pattern}' is not a subject"));
        }
    }
    let namespaces = raw.host_services.iter().flat_map(|services| &services.namespaces);
    if namespaces.clone().count() > MAX_NAMESPACES {
        problems.push(format!("host_services.namespaces has more than {MAX_NAMESPACES}, and each may have a connection"));
    }
    for (namespace, context) in namespaces {
        if namespace.parse::<Namespace>().is_err() {
            problems.push(format!("host_services.namespaces: '{namespace}' is not a namespace"));
        }
        if !context.starts_with('/') {
            problems
                .push(format!("host_services.namespaces.{namespace}: '{context}' is not the full path of a NATS context's file"));
        }
    }
    for name in raw.host_services.iter().flat_map(|services| services.services.keys()) {
        if name.parse::<nex_protocol::host::Service>().is_err() {
            problems.push(format!("host_services.services: '{name}' is unknown: expected kv, objectstore, messaging or http"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_reported_at_once() {
        let raw = RawConfig::parse(
            r#"{"machine_pool_size":0,"workload_types":["native","docker"],"valid_issuers":["me"],"operators":["me"],"sandbox":"xen",
                "host_services":{"namespaces":{"a b":"/a.json","c":"c.json"}}}"#,
        )
        .unwrap();
        let Invalid(problems) = NodeConfig::resolve(raw).unwrap_err();
        assert_eq!(problems.len(), 7, "{problems:?}");
    }

    #[test]
    fn fields_that_cannot_work_yet_give_a_warning_each() {
        let raw = RawConfig::parse(r#"{"public_nats_server":{},"otel_traces":true}"#).unwrap();
        let config = NodeConfig::resolve(raw).unwrap();
        assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    }

    #[test]
    fn root_requires_every_layer_but_those_that_are_waived_and_others_what_they_name() {
        let config = |text: &str| NodeConfig::resolve(RawConfig::parse(text).unwrap()).unwrap();
        assert_eq!(config("{}").required(true), Part::ALL);
        assert_eq!(config("{}").required(false), []);
        let waived = config(r#"{"waive":["cgroup","network"],"require":["seccomp"]}"#);
        assert!(!waived.required(true).iter().any(|part| [Part::Cgroup, Part::Network].contains(part)));
        assert_eq!(waived.required(false), [Part::Seccomp]);
        assert!(RawConfig::parse(r#"{"waive":["walls"]}"#).is_err());
    }

    #[test]
    fn a_limit_of_zero_means_none_as_in_0_2_7() {
        let raw = RawConfig::parse(r#"{"no_sandbox":true,"node_limits":{"max_workloads":0,"max_workload_bytes":5}}"#).unwrap();
        let limits = NodeConfig::resolve(raw).unwrap().node_limits;
        assert_eq!((limits.workloads, limits.workload_bytes), (None, Some(5)));
    }
}
