//! A node's JSON configuration as written: the fields of 0.2.7 and newer ones, all optional, unknown keys refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::isolation::RawIsolation;
use super::quota::RawQuotas;
use super::raw_microvm::{RawCni, RawMachineClass, RawNetwork, RawRateLimiters};
use super::service_credentials::RawServiceCredentials;

/// Largest configuration file accepted, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why a configuration file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file itself.
    #[error(
        "cannot read the configuration {path}; next: give another with --config, or write a starter with 'nex node preflight --init nosandbox'"
    )]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its size.
    #[error("the configuration {0} is larger than 1 MiB; next: check that it is the right file")]
    TooLarge(PathBuf),
    /// Its text.
    #[error(
        "the configuration {path} is not valid: {why}; next: correct it there, and try it with `nex node preflight --config {path}`"
    )]
    Text {
        /// Its path.
        path: PathBuf,
        /// What is wrong, where, and the key that was probably meant.
        why: TextError,
    },
}

/// The file as written. Field meanings: section "Configuration" of the documentation.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are the configuration's own; resolve.rs gives each its meaning")]
pub struct RawConfig {
    pub agent_handshake_timeout_ms: Option<u64>,
    pub agent_ping_timeout_ms: Option<u64>,
    pub autostart: Option<RawAutostart>,
    pub bin_path: Option<Vec<PathBuf>>,
    pub cni: Option<RawCni>,
    pub default_resource_dir: Option<PathBuf>,
    pub host_services: Option<RawHostServices>,
    pub internal_node_host: Option<String>,
    pub internal_node_port: Option<u16>,
    pub kernel_filepath: Option<PathBuf>,
    pub kernel_path: Option<PathBuf>,
    pub rootfs_filepath: Option<PathBuf>,
    pub rootfs_path: Option<PathBuf>,
    pub machine_pool_size: Option<usize>,
    pub machine_template: Option<RawMachine>,
    pub no_sandbox: Option<bool>,
    pub node_limits: Option<RawLimits>,
    pub otlp_exporter_url: Option<String>,
    pub otel_metrics: Option<bool>,
    pub otel_metrics_port: Option<u16>,
    pub otel_metrics_exporter: Option<String>,
    pub otel_traces: Option<bool>,
    pub otel_traces_exporter: Option<String>,
    pub pid_filepath: Option<PathBuf>,
    pub preserve_network: Option<bool>,
    pub public_nats_server: Option<serde_json::Value>,
    pub rate_limiters: Option<RawRateLimiters>,
    pub tags: Option<BTreeMap<String, String>>,
    pub valid_issuers: Option<Vec<String>>,
    pub workload_types: Option<Vec<String>>,
    pub deny_trigger_subjects: Option<Vec<String>>,
    // Ours.
    pub operators: Option<Vec<String>>,
    pub sandbox: Option<String>,
    pub machine_classes: Option<BTreeMap<String, RawMachineClass>>,
    pub network: Option<RawNetwork>,
    pub boot_timeout_ms: Option<u64>,
    pub snapshots: Option<bool>,
    pub jailer: Option<bool>,
    pub require: Option<Vec<nex_process::confinement::Part>>,
    pub require_digest: Option<bool>,
    pub waive: Option<Vec<nex_process::confinement::Part>>,
    pub require_bound_claims: Option<bool>,
    pub require_bound_environment: Option<bool>,
    pub allow_trigger_subjects: Option<BTreeMap<String, Vec<String>>>,
    pub allow_nats_urls: Option<Vec<String>>,
    pub state_dir: Option<PathBuf>,
    pub workload_limits: Option<RawWorkloadLimits>,
    pub artifact_cache_mib: Option<u64>,
    pub history_mib: Option<u64>,
    pub quotas: Option<RawQuotas>,
    pub deploy_timeout_ms: Option<u64>,
    pub stop_grace_ms: Option<u64>,
    pub isolation: Option<RawIsolation>,
    pub http: Option<RawHttp>,
    pub service_credentials: Option<RawServiceCredentials>,
}

/// `http`: a listener for requests to functions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are the configuration's own")]
pub struct RawHttp {
    pub listen: String,
    pub namespace: Option<String>,
    pub hosts: BTreeMap<String, String>,
    pub tls: Option<RawHttpTls>,
    pub max_body_bytes: Option<usize>,
    pub timeout_ms: Option<u64>,
}

/// `http.tls`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawHttpTls {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// `machine_template`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawMachine {
    pub vcpu_count: Option<u32>,
    pub memsize_mib: Option<u64>,
}

/// `node_limits`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawLimits {
    pub max_workloads: Option<usize>,
    pub max_total_bytes: Option<u64>,
    pub max_workload_bytes: Option<u64>,
}

/// `workload_limits`: what a workload gets when it asks for nothing, and the most it may ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawWorkloadLimits {
    pub memory_mib: Option<u64>,
    pub max_memory_mib: Option<u64>,
    pub call_timeout_ms: Option<u64>,
    pub max_call_timeout_ms: Option<u64>,
    pub concurrency: Option<usize>,
    pub max_processes: Option<u64>,
    pub cpu_percent: Option<u32>,
    pub tmp_mib: Option<u64>,
    pub reply_bytes: Option<u64>,
    pub payload_bytes: Option<u64>,
    pub host_calls: Option<u64>,
    pub log_bytes: Option<u64>,
    pub cpu_ms: Option<u64>,
}

/// `autostart`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawAutostart {
    pub workloads: Vec<RawAutostartWorkload>,
}

/// One entry of `autostart.workloads`
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are the configuration's own")]
pub struct RawAutostartWorkload {
    pub name: String,
    pub namespace: String,
    pub argv: Vec<String>,
    pub description: Option<String>,
    pub essential: bool,
    pub r#type: String,
    pub location: String,
    pub jsdomain: Option<String>,
    pub environment: BTreeMap<String, String>,
    pub trigger_subjects: Vec<String>,
}

impl std::fmt::Debug for RawAutostartWorkload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawAutostartWorkload").field("name", &self.name).field("location", &self.location).finish_non_exhaustive()
    }
}

/// `host_services`
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are the configuration's own")]
pub struct RawHostServices {
    pub nats_url: Option<String>,
    pub nats_user_jwt: Option<String>,
    pub nats_user_seed: Option<String>,
    /// Files with NATS contexts, by the namespace whose functions act with them.
    pub namespaces: BTreeMap<String, String>,
    pub services: BTreeMap<String, RawHostService>,
}

impl std::fmt::Debug for RawHostServices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawHostServices")
            .field("nats_url", &self.nats_url)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

/// One of `host_services.services`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are the configuration's own")]
pub struct RawHostService {
    pub enabled: bool,
    #[serde(alias = "configuration")]
    pub config: serde_json::Value,
}

impl RawConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ReadError`], with a hint for a misspelt key.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let file = |source| ReadError::File { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(file)?.len() > MAX_BYTES {
            return Err(ReadError::TooLarge(path.to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(file)?;
        Self::parse(&text).map_err(|why| ReadError::Text { path: path.to_owned(), why })
    }

    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong with it, where, and for an unknown key the one that was probably meant.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        // A list would be taken for the fields in their order.
        let value: serde_json::Value = serde_json::from_str(text).map_err(TextError)?;
        if !value.is_object() {
            let why = "expected an object of fields, as in {\"machine_pool_size\": 1}";
            return Err(TextError(serde::de::Error::custom(why)));
        }
        serde_json::from_str(text).map_err(TextError)
    }
}

/// What is wrong with the text of a configuration.
#[derive(Debug, thiserror::Error)]
pub struct TextError(serde_json::Error);

impl std::fmt::Display for TextError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.to_string();
        let Some(meant) = hint(&text) else { return f.write_str(&text) };
        // Where one is meant, the names of all others are in the way.
        let (what, rest) = text.split_once(", expected ").unwrap_or((&text, ""));
        let place = rest.rsplit_once(" at line ").map(|(_, place)| format!(" at line {place}")).unwrap_or_default();
        write!(f, "{what}{place}. Did you mean '{meant}'?")
    }
}

/// The known key nearest to the unknown one that serde complains about.
fn hint(complaint: &str) -> Option<&str> {
    let mut quoted = complaint.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    quoted.map(|known| (strsim::levenshtein(unknown, known), known)).min().filter(|(far, _)| *far <= 4).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_the_seed_documents_is_read() {
        let text = r#"{"default_resource_dir":"/tmp/nex","machine_pool_size":1,"internal_node_host":"10.10.10.1",
            "cni":{"network_name":"fcnet","interface_name":"veth0","subnet":"10.10.10.0/24"},
            "machine_template":{"vcpu_count":1,"memsize_mib":256},"tags":{"simple":"true"},
            "host_services":{"services":{"kv":{"enabled":true,"config":{"bucket_name":"b"}}}},"no_sandbox":true}"#;
        let config = RawConfig::parse(text).unwrap();
        assert_eq!(config.machine_pool_size, Some(1));
        assert_eq!(config.no_sandbox, Some(true));
        assert_eq!(RawConfig::parse(r#"{"host_services":null}"#).unwrap(), RawConfig::default());
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
        let error = RawConfig::parse(r#"{"machine_poolsize": 3}"#).unwrap_err().to_string();
        assert!(error.contains("Did you mean 'machine_pool_size'?"), "{error}");
        assert!(error.contains("line 1") && !error.contains("autostart"), "{error}");
        for text in ["[]", "[{}]", "1", ""] {
            assert!(RawConfig::parse(text).is_err(), "{text}");
        }
    }
}
