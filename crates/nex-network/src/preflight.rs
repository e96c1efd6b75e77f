//! What this host lacks for a network of guests.

use std::fs::{self, OpenOptions};

use crate::cni::list;
use crate::config::{CniConfig, NetworkKind};
use crate::error::NetworkError;
use crate::nft;

/// Something the host lacks; a network cannot be opened without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingRequirement {
    /// What is missing.
    pub what: String,
    /// What to type or install.
    pub advice: String,
}

/// Numbers of capabilities.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Says what this host lacks for networks of this kind; empty is good news. Changes nothing.
#[must_use]
pub fn check(kind: &NetworkKind) -> Vec<MissingRequirement> {
    let mut lacks = Vec::new();
    let mut lack = |what: String, advice: &str| lacks.push(MissingRequirement { what, advice: advice.to_owned() });
    let capabilities = capabilities();
    if !has(capabilities, CAP_NET_ADMIN) {
        lack("CAP_NET_ADMIN".to_owned(), "run the node as root, or give it the capability (systemd: AmbientCapabilities=)");
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        lack(format!("/dev/net/tun ({error})"), "load the module (modprobe tun), and let the node open the device");
    }
    if nft::find().is_none() {
        lack("the program nft".to_owned(), "install nftables (apt-get install nftables)");
    }
    if let NetworkKind::Cni(cni) = kind {
        if !has(capabilities, CAP_SYS_ADMIN) {
            lack("CAP_SYS_ADMIN, for network namespaces".to_owned(), "run the node as root, or use the built-in network");
        }
        match missing(cni) {
            Ok(plugins) => {
                for plugin in plugins {
                    lack(
                        format!("the CNI plug-in {plugin}"),
                        "install it (apt-get install containernetworking-plugins) and name its directory in cni.bin_path",
                    );
                }
            }
            Err(error) => lack(error.to_string(), "repair the list, or remove it to have one generated"),
        }
    }
    lacks
}

fn missing(cni: &CniConfig) -> Result<Vec<String>, NetworkError> {
    // Of a generated list only the plug-ins count here; any net stands for the one chosen at open.
    let list =
        list::read(cni)?.unwrap_or_else(|| list::generate(cni, ipnet::Ipv4Net::default(), std::net::Ipv4Addr::UNSPECIFIED));
    Ok(list::missing(cni, &list))
}

fn has(capabilities: u64, number: u32) -> bool {
    capabilities & (1 << number) != 0
}

fn capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
