//! Settings of our own devices below `/proc/sys/net`; of the host's, only what is read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::NetworkError;

/// Keeps IPv6 off a device: guests speak IPv4 only, and the host shall not announce itself to them.
pub(crate) fn no_ipv6(device: &str) -> Result<(), NetworkError> {
    match write("ipv6", device, "disable_ipv6", 1) {
        // A kernel without IPv6 needs none of it.
        Err(NetworkError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// What a guest's device is: strict about sources, a router's port, silent about the host's other addresses.
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

/// What a namespace of one process is: without IPv6, and free to send packets of 127.0.0.1 to the gateway. Of the caller's namespace.
pub(crate) fn namespace() -> Result<(), NetworkError> {
    for devices in ["all", "default"] {
        no_ipv6(devices)?;
    }
    write("ipv4", "all", "route_localnet", 1)
}

/// Whether the host passes packets on.
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
