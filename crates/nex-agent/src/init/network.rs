//! The guest's network: the loopback, and one interface that the host routes. No DHCP, no IPv6, no name servers but the given ones.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, bail};
use nex_netlink::{LinkChange, Netlink};
use nex_protocol::guest::GuestNetwork;

/// Brings a device up.
const UP: LinkChange<'_> = LinkChange { alias: None, mac: None, mtu: None, group: None, up: true };
/// Source address of requests to the metadata service: any link-local address but the service's own.
const LINK_LOCAL: (Ipv4Addr, u8) = (Ipv4Addr::new(169, 254, 1, 1), 16);
/// The gateway's name in `/etc/hosts`.
const HOST_NAME: &str = "host.nex.internal";
/// Every IPv4 host must accept packets of this size.
const MIN_MTU: u16 = 576;
/// A resolver reads no more name servers than this.
const MAX_DNS: usize = 3;

/// Brings the loopback up, switches IPv6 off before any other link comes up, and lets the workload listen on every port.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn start() -> anyhow::Result<()> {
    for scope in ["all", "default"] {
        // A kernel without IPv6 has no such file, which is fine.
        fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").ok();
    }
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").ok();
    let mut netlink = Netlink::open().context("cannot open a netlink socket")?;
    netlink.change_link(index("lo")?, UP).context("cannot bring the loopback up")
}

/// Runs work, a request to the metadata service, while the interface has a link-local address.
///
/// # Errors
/// When there is no interface, or the kernel refuses.
pub(super) async fn with_link_local<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let link = interface()?;
    let mut netlink = Netlink::open().context("cannot open a netlink socket")?;
    let (address, prefix) = LINK_LOCAL;
    netlink.add_address(link, address, prefix).context("cannot add a link-local address")?;
    netlink.change_link(link, UP).context("cannot bring the interface up")?;
    let done = work.await;
    netlink.set_down(link).context("cannot take the interface down")?;
    netlink.remove_address(link, address, prefix).context("cannot remove the link-local address")?;
    done
}

/// Sets the interface up as the host expects it.
///
/// # Errors
/// When there is no interface, the settings are invalid, or the kernel refuses.
pub(super) fn apply(network: &GuestNetwork) -> anyhow::Result<()> {
    let mac = parse_mac(&network.mac)?;
    if network.prefix > 32 || network.mtu < MIN_MTU {
        bail!("a prefix of {} and packets of {} bytes are no network", network.prefix, network.mtu);
    }
    let link = interface()?;
    let mut netlink = Netlink::open().context("cannot open a netlink socket")?;
    netlink.set_down(link).context("cannot take the interface down")?;
    let addressed = LinkChange { mac: Some(mac), mtu: Some(network.mtu), ..LinkChange::default() };
    netlink.change_link(link, addressed).context("cannot set the interface's address")?;
    netlink.change_link(link, UP).context("cannot bring the interface up")?;
    netlink.add_address(link, network.address, network.prefix).context("cannot add the address")?;
    netlink.add_default_route(link, network.gateway).context("cannot add the default route")
}

/// Writes `/etc/hosts` and, where there are name servers, `/etc/resolv.conf`; otherwise removes one that the image contains.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write_names(etc: &Path, hostname: &str, network: Option<&GuestNetwork>) -> anyhow::Result<()> {
    let mut hosts = format!("127.0.0.1 localhost {hostname}\n");
    let mut resolvers = String::new();
    if let Some(network) = network {
        hosts = format!("127.0.0.1 localhost\n{} {hostname}\n{} {HOST_NAME}\n", network.address, network.gateway);
        for server in network.dns.iter().take(MAX_DNS) {
            writeln!(resolvers, "nameserver {server}")?;
        }
    }
    fs::create_dir_all(etc).context("cannot make /etc")?;
    for (name, text) in [("hosts", hosts), ("resolv.conf", resolvers)] {
        let path = etc.join(name);
        // Replaced, not overwritten: an image may have a link here.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", path.display()));
            }
            _ => {}
        }
        if !text.is_empty() {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// The one interface with a device behind it.
fn interface() -> anyhow::Result<i32> {
    let links = fs::read_dir("/sys/class/net").context("cannot list the interfaces")?.flatten();
    let mut names: Vec<_> = links.filter(|link| link.path().join("device").exists()).map(|link| link.file_name()).collect();
    names.sort();
    match names.first() {
        Some(name) => index(&name.to_string_lossy()),
        None => bail!("this machine has no network interface; next: give it one, or no network"),
    }
}

fn index(name: &str) -> anyhow::Result<i32> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"));
    text.with_context(|| format!("there is no interface {name}"))?.trim().parse().context("the interface's index is no number")
}

/// Parses a unicast Ethernet address that is not all zero.
fn parse_mac(text: &str) -> anyhow::Result<[u8; 6]> {
    let bytes: Vec<u8> =
        text.split(':').filter(|part| part.len() == 2).filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    match <[u8; 6]>::try_from(bytes) {
        Ok(mac) if text.len() == 17 && mac.iter().any(|byte| *byte != 0) && mac.first().is_some_and(|first| first & 1 == 0) => {
            Ok(mac)
        }
        _ => bail!("'{text}' is not the Ethernet address of an interface"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(dns: &[&str]) -> GuestNetwork {
        GuestNetwork {
            mac: "52:54:00:00:00:02".into(),
            address: Ipv4Addr::new(10, 0, 0, 2),
            prefix: 30,
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            mtu: 1500,
            dns: dns.iter().map(|it| it.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn only_a_unicast_address_is_accepted() {
        assert_eq!(parse_mac("52:54:00:0a:00:02").unwrap(), [0x52, 0x54, 0, 10, 0, 2]);
        for wrong in ["", "52:54:00:00:00", "01:00:5e:00:00:01", "00:00:00:00:00:00", "52:54:00:00:00:02:", "+2:54:00:00:00:0x"] {
            assert!(parse_mac(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_resolved_by_given_servers_and_by_no_others() {
        let etc = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(etc.path().join(name));
        let outside = etc.path().join("outside");
        fs::write(&outside, "kept").unwrap();
        std::os::unix::fs::symlink(&outside, etc.path().join("resolv.conf")).unwrap();
        write_names(etc.path(), "vm-1", Some(&network(&["10.0.0.1"]))).unwrap();
        assert_eq!(read("resolv.conf").unwrap(), "nameserver 10.0.0.1\n");
        assert_eq!(read("hosts").unwrap(), "127.0.0.1 localhost\n10.0.0.2 vm-1\n10.0.0.1 host.nex.internal\n");
        assert_eq!(read("outside").unwrap(), "kept");
        write_names(etc.path(), "vm-1", Some(&network(&[]))).unwrap();
        assert!(read("resolv.conf").is_err());
        write_names(etc.path(), "vm-1", None).unwrap();
        assert_eq!(read("hosts").unwrap(), "127.0.0.1 localhost vm-1\n");
    }
}
