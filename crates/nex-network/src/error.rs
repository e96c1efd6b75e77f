//! What can go wrong with a guest's network.

use std::io;
use std::path::PathBuf;

use ipnet::Ipv4Net;

/// A network could not be opened, or a guest not be attached.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The configuration cannot work.
    #[error("{0}")]
    Config(String),
    /// The subnet is in use on this host.
    #[error("the subnet {subnet} is taken by {by}; next: give another, or none to have a free one chosen")]
    Taken {
        /// The subnet asked for.
        subnet: Ipv4Net,
        /// Who has it: a device, a route, another node.
        by: String,
    },
    /// None of the subnets tried is free.
    #[error("no free /24 from 192.168.127.0/24 upwards; next: give a subnet, or stop a node of this host")]
    NoSubnet,
    /// Every address is a guest's.
    #[error("all addresses of {0} are in use; next: stop guests, or give a larger subnet")]
    Full(Ipv4Net),
    /// A guest of this id has a connection.
    #[error("the guest {0} has a connection already; next: detach it, or sweep what an earlier process left")]
    Exists(String),
    /// The network is closed.
    #[error("the network is closed")]
    Closed,
    /// It took too long.
    #[error("the guest's network was not ready in time; next: look at the host's load and at its netlink")]
    Late,
    /// The kernel refused something about a device.
    #[error("could not {action} {device}: {source}; next: {}", advice(source))]
    Device {
        /// What was being done.
        action: &'static str,
        /// To which device.
        device: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file or directory refused.
    #[error("could not {action} {path}: {source}; next: check that the node may do so there")]
    File {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The packet filter's program did not do it.
    #[error("nft did not {action}: {said}; next: check that nftables is installed and the kernel has nf_tables")]
    Filter {
        /// What was being done.
        action: &'static str,
        /// What the program said.
        said: String,
    },
    /// A list of plug-ins cannot be used.
    #[error("the CNI list {path} cannot be used: {why}; next: repair it, or remove it to have one generated")]
    List {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A plug-in is missing.
    #[error("the CNI plug-in {plugin} is in none of the directories of bin_path; next: install it, or add its directory")]
    NoPlugin {
        /// Its type.
        plugin: String,
    },
    /// A plug-in failed.
    #[error("the CNI plug-in {plugin} failed at {command}: {said}; next: read what it says, and check the list of plug-ins")]
    Plugin {
        /// Its type.
        plugin: String,
        /// ADD or DEL.
        command: &'static str,
        /// What it said, as it is.
        said: String,
    },
}

/// An error of the kernel about a device.
pub(crate) fn device(action: &'static str, device: &str) -> impl FnOnce(io::Error) -> NetworkError {
    let device = device.to_owned();
    move |source| NetworkError::Device { action, device, source }
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "run the node as root or with CAP_NET_ADMIN",
        io::ErrorKind::NotFound => "load the tun module (modprobe tun)",
        io::ErrorKind::Unsupported => {
            "check that the kernel has this kind of device or queue (modules tun, ifb, sch_tbf, cls_u32, act_mirred)"
        }
        _ => "check the device with `ip -details link`",
    }
}
