//! One guest's connection: what its VMM and its init need to know.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One guest's connection. Stored as a record, it can be detached by a later process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The guest's id, as given to attach.
    pub id: String,
    /// The tap device that the VMM opens, in `netns` if there is one; for a process the host's end of its veth.
    pub tap: String,
    /// The namespace the tap is in; absent means the host's own.
    pub netns: Option<PathBuf>,
    /// The MAC address the guest must use.
    pub mac: [u8; 6],
    /// The guest's address; packets with another source are dropped.
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix, in bits.
    pub prefix: u8,
    /// The default gateway, which is the host's address.
    pub gateway: Ipv4Addr,
    /// The gateway's MAC address: the same for all guests of a network, so that a clone's cached neighbour stays right.
    pub gateway_mac: [u8; 6],
    /// The device's MTU, in bytes.
    pub mtu: u16,
    /// Name servers that the list of plug-ins gave; none with the built-in network.
    pub nameservers: Vec<IpAddr>,
    /// Ports of a process's own 127.0.0.1 that lead to the host's loopback.
    #[serde(default)]
    pub loopback_ports: BTreeSet<u16>,
}
