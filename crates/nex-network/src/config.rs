//! What a node decides about the network of its guests.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use ipnet::Ipv4Net;
use nex_netlink::Rate;
use nex_process::Deadline;

use crate::error::NetworkError;
use crate::sysctl;

/// How guests are connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkKind {
    /// A tap and a route per guest, made by this crate.
    Builtin,
    /// A chain of CNI plug-ins and a network namespace per guest.
    Cni(CniConfig),
}

/// Where the chain of plug-ins and the plug-ins themselves are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniConfig {
    /// Name of the network, and of its file: `<network_name>.conflist`.
    pub network_name: String,
    /// Name of the guest's device inside its namespace.
    pub interface_name: String,
    /// Directories of the plug-ins; the first that has one wins.
    pub bin_path: Vec<PathBuf>,
    /// Directory of the operator's lists; only read. Without a list there, one is generated (`ptp`, `host-local`).
    pub conf_dir: PathBuf,
    /// Name servers for the generated list.
    pub nameservers: Vec<Ipv4Addr>,
}

/// One network of guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// How guests are connected.
    pub kind: NetworkKind,
    /// Short id of the node, `[a-z0-9]{1,12}`; names everything that this network makes.
    pub owner: String,
    /// Directory for records and leases, absolute.
    pub state_dir: PathBuf,
    /// The guests' subnet, /16 to /29. Absent: the first free /24 from 192.168.127.0/24 upwards.
    pub subnet: Option<Ipv4Net>,
    /// The host's address in it. Absent: the subnet's first.
    pub gateway: Option<Ipv4Addr>,
    /// What guests may reach.
    pub policy: Policy,
    /// Limits of each guest; give none where the VMM applies its own.
    pub limits: Option<Limits>,
}

/// What guests may reach; everything else is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Where they may go beyond the host.
    pub allow: Vec<Allow>,
    /// TCP ports of the gateway's address that lead to the same port of the host's 127.0.0.1.
    pub host_ports: Vec<u16>,
    /// TCP servers that every guest reaches, even one that was [restricted](crate::Network::restrict). Those on the host's loopback
    /// are reached like `host_ports`.
    pub servers: Vec<SocketAddrV4>,
}

impl Policy {
    /// Every port of the gateway that leads to the host's loopback, in order.
    pub(crate) fn loopback_ports(&self) -> BTreeSet<u16> {
        let servers = self.servers.iter().filter(|server| server.ip().is_loopback()).map(SocketAddrV4::port);
        self.host_ports.iter().copied().chain(servers).collect()
    }

    /// Whether guests may reach anything beyond the host.
    pub(crate) fn leads_beyond(&self) -> bool {
        !self.allow.is_empty() || self.servers.iter().any(|server| !server.ip().is_loopback())
    }
}

/// A destination guests may open connections to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allow {
    /// Every public address: none of the host, private, link-local (so no metadata service), loopback or multicast.
    Internet,
    /// This net. The host's own addresses inside it stay closed, unless one is named alone (/32) and with a port.
    Net {
        /// The net.
        net: Ipv4Net,
        /// Only this port, TCP and UDP; absent means everything.
        port: Option<u16>,
    },
}

impl Allow {
    /// One port of one address.
    pub(crate) fn service(&self) -> Option<(Ipv4Net, u16)> {
        match self {
            Self::Net { net, port: Some(port) } if net.prefix_len() == 32 => Some((*net, *port)),
            Self::Net { .. } | Self::Internet => None,
        }
    }
}

/// How much one guest may send and receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// What reaches the guest.
    pub to_guest: Option<Rate>,
    /// What the guest sends.
    pub from_guest: Option<Rate>,
}

/// The subnet's bounds: smaller has no room for guests, larger has more addresses than a tap's name can number.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=29;
/// Names of devices and files.
const MAX_ID: usize = 64;

impl NetworkConfig {
    /// What the host lacks for it, each with what helps.
    pub(crate) fn warnings(&self) -> Vec<String> {
        if sysctl::forwards() {
            return Vec::new();
        }
        match self.kind {
            NetworkKind::Builtin if !self.policy.leads_beyond() => Vec::new(),
            NetworkKind::Builtin => vec![
                "the policy lets guests out, but this host does not forward packets; next: sysctl -w net.ipv4.ip_forward=1"
                    .to_owned(),
            ],
            NetworkKind::Cni(_) => vec![
                "this host does not forward packets; the plug-in ptp will switch net.ipv4.ip_forward on for the whole host"
                    .to_owned(),
            ],
        }
    }

    pub(crate) fn check(&self) -> Result<(), NetworkError> {
        let wrong = |text: String| Err(NetworkError::Config(text));
        check_owner(&self.owner)?;
        if !self.state_dir.is_absolute() {
            return wrong(format!("the state directory {} is relative; next: give an absolute path", self.state_dir.display()));
        }
        if let Some(subnet) = self.subnet {
            if !PREFIXES.contains(&subnet.prefix_len()) || subnet.addr() != subnet.network() {
                return wrong(format!(
                    "the subnet {subnet} is unusable; next: give the net's own address with a prefix of 16 to 29"
                ));
            }
            let gateway = self.gateway.unwrap_or_else(|| first_host(subnet));
            if !subnet.contains(&gateway) || gateway == subnet.network() || gateway == subnet.broadcast() {
                return wrong(format!(
                    "the gateway {gateway} is no host address of {subnet}; next: give one, or none for the first"
                ));
            }
        } else if let Some(gateway) = self.gateway {
            return wrong(format!("a gateway ({gateway}) needs its subnet; next: give the subnet too, or neither"));
        }
        match &self.kind {
            NetworkKind::Builtin => Ok(()),
            NetworkKind::Cni(cni) => cni.check(),
        }
    }
}

impl CniConfig {
    fn check(&self) -> Result<(), NetworkError> {
        if !is_name(&self.network_name, MAX_ID) {
            return Err(NetworkError::Config(format!("the CNI network's name {:?} is no plain file name", self.network_name)));
        }
        if !is_name(&self.interface_name, 15) || self.interface_name == TAP_IN_NAMESPACE || self.interface_name == "lo" {
            return Err(NetworkError::Config(format!(
                "the CNI interface's name {:?} is unusable; next: give 1 to 15 letters, digits, '-' or '_', other than lo and {TAP_IN_NAMESPACE}",
                self.interface_name
            )));
        }
        Ok(())
    }
}

/// The tap inside a guest's namespace.
pub(crate) const TAP_IN_NAMESPACE: &str = "tap0";

/// The subnet's first host address.
pub(crate) fn first_host(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1))
}

/// Letters, digits, '-' and '_', beginning with a letter or digit: fit for files, devices and rules.
pub(crate) fn is_name(name: &str, max: usize) -> bool {
    (1..=max).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

/// A guest's id becomes part of names and of the record's file.
pub(crate) fn check_id(id: &str) -> Result<(), NetworkError> {
    if is_name(id, MAX_ID) {
        return Ok(());
    }
    Err(NetworkError::Config(format!("the guest's id {id:?} is unusable; next: use 1 to {MAX_ID} letters, digits, '-' and '_'")))
}

/// The owner's name becomes part of the table's name.
pub(crate) fn check_owner(owner: &str) -> Result<(), NetworkError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if (1..=12).contains(&owner.len()) && owner.bytes().all(plain) {
        return Ok(());
    }
    Err(NetworkError::Config(format!("the owner {owner:?} is unusable; next: use 1 to 12 lower-case letters and digits")))
}

/// The deadline as an error of this crate.
pub(crate) async fn bound<T>(by: Deadline, future: impl Future<Output = T>) -> Result<T, NetworkError> {
    by.bound(future).await.map_err(|_elapsed| NetworkError::Late)
}
