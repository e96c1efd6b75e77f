//! The JSON configuration of machines and their network.

use std::path::PathBuf;

use serde::Deserialize;

/// `cni`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are the configuration's own")]
pub struct RawCni {
    pub bin_path: Option<Vec<PathBuf>>,
    pub interface_name: Option<String>,
    pub network_name: Option<String>,
    pub subnet: Option<String>,
    pub nameservers: Option<Vec<String>>,
}

/// `network`: where guests may go, whatever connects them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawNetwork {
    /// `internet`, `10.1.0.0/16`, `10.1.2.3:5432`; absent is `["internet"]`.
    pub allow: Option<Vec<String>>,
    /// Ports of the host's loopback.
    pub host_ports: Option<Vec<u16>>,
    /// Addresses of name servers.
    pub dns: Option<Vec<String>>,
    /// Subnet, e.g. `192.168.130.0/24`.
    pub subnet: Option<String>,
}

/// `rate_limiters`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawRateLimiters {
    pub(super) bandwidth: Option<RawBucket>,
    #[serde(alias = "operations")]
    pub(super) iops: Option<RawBucket>,
}

/// A token bucket: bytes or operations, per ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBucket {
    pub(super) one_time_burst: Option<u64>,
    pub(super) refill_time: u64,
    pub(super) size: u64,
}

/// One of `machine_classes`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawMachineClass {
    pub(super) vcpu_count: Option<u32>,
    pub(super) memsize_mib: Option<u64>,
    pub(super) pool_size: Option<usize>,
}
