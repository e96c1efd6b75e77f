//! Settings below `/proc/sys/net`: written for this crate's devices only, read for the host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::NetworkError;

/// Keeps IPv6 off a device: guests speak IPv4 only, and the host must not announce itself to them.
pub(crate) fn no_ipv6(device: &str) -> Result<(), NetworkError> {
    match write("ipv6", device, "disable_ipv6", 1) {
        // A kernel without IPv6 needs no setting.
        Err(NetworkError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Settings of a guest's device: strict source check, forwarding, no ARP answers for the host's other addresses.
pub(crate) fn guest(device: &str, to_loopback: bool) -> Result<(), NetworkError> {
    no_ipv6(device)?;
    write("ipv4", device, "rp_filter", 1)?;
    write("ipv4", device, "arp_ignore", 1)?;
    write("ipv4", device, "forwarding", 1)?;
    write("ipv4", device, "send_redirects", 0)?;
    write("ipv4", device, "accept_redirects", 0)?;
    // Lets packets to 127.0.0.1 in; the packet filter drops those that were not redirected there.
    if to_loopback { write("ipv4", device, "route_localnet", 1) } else { Ok(()) }
}

/// Settings of the calling thread's namespace, for one process: no IPv6; every port of its own is its to listen on; packets from
/// 127.0.0.1 may go to the gateway.
pub(crate) fn namespace() -> Result<(), NetworkError> {
    for devices in ["all", "default"] {
        no_ipv6(devices)?;
    }
    // Before Linux 4.11 there is no such setting.
    let _older_kernel = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    write("ipv4", "all", "route_localnet", 1)
}

/// Whether the host forwards packets.
#[must_use]
pub fn forwards() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|value| value.trim() != "0")
}

fn write(family: &str, device: &str, setting: &str, value: u8) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys/net").join(family).join("conf").join(device).join(setting);
    fs::write(&path, value.to_string()).map_err(|source| NetworkError::File {
        action: "write",
        path: PathBuf::from(&path),
        source,
    })
}
