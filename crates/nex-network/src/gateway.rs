//! The gateway device: it holds the gateway's address, and its name is the lock on the subnet.
//!
//! It is a tap that is never opened: taps are needed anyway, other kinds (dummy, bridge) are not in every kernel. It is up before the
//! first guest, so that a server can listen on the address at once.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nex_netlink::{Link, LinkChange, Netlink};
use nex_process::tap::{claim_tap, create_tap};

use crate::config::first_host;
use crate::error::{NetworkError, device};
use crate::names::{Names, alias};
use crate::sysctl;

/// A locked subnet.
#[derive(Debug, Clone)]
pub(crate) struct GatewayDevice {
    pub(crate) subnet: Ipv4Net,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) names: Names,
    pub(crate) index: i32,
    /// Whether it was made now; an earlier process of the owner left it otherwise.
    pub(crate) is_new: bool,
}

/// The third octets tried when no subnet is given.
const FIRST: u8 = 127;
const LAST: u8 = 254;

/// Takes the requested subnet, or the first free one; one that this owner holds already comes first. Blocks.
pub(crate) fn take(owner: &str, subnet: Option<Ipv4Net>, gateway: Option<Ipv4Addr>) -> Result<GatewayDevice, NetworkError> {
    let mut netlink = Netlink::open().map_err(device("open netlink for", "devices"))?;
    if let Some(subnet) = subnet {
        let gateway = gateway.unwrap_or_else(|| first_host(subnet));
        return take_one(&mut netlink, owner, subnet, gateway)?.map_err(|by| NetworkError::Taken { subnet, by });
    }
    let mut candidates: Vec<_> =
        (FIRST..=LAST).filter_map(|third| Ipv4Net::new(Ipv4Addr::new(192, 168, third, 0), 24).ok()).collect();
    let links = netlink.links().map_err(device("list", "devices"))?;
    let ours =
        |net: &Ipv4Net| links.iter().any(|link| link.name == Names::of(*net).gateway_device() && link.alias == alias(owner));
    candidates.sort_by_key(|net| !ours(net));
    for subnet in candidates {
        if let Ok(gateway_device) = take_one(&mut netlink, owner, subnet, first_host(subnet))? {
            return Ok(gateway_device);
        }
    }
    Err(NetworkError::NoSubnet)
}

/// The inner error names the device that uses the subnet.
fn take_one(
    netlink: &mut Netlink,
    owner: &str,
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
) -> Result<Result<GatewayDevice, String>, NetworkError> {
    let names = Names::of(subnet);
    let name = names.gateway_device();
    let mut made = None;
    match create_tap(&name) {
        Ok(tap) => made = Some(tap),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
        Err(source) => return Err(device("make", &name)(source)),
    }
    let link = find(netlink, &name)?;
    if made.is_none() && link.alias != alias(owner) {
        // A device without an alias was left by a process that died between two system calls, or its owner is still at work.
        match claim(&link, &name) {
            Some(tap) => made = Some(tap),
            None => {
                return Ok(Err(format!("the device {name} ({})", if link.alias.is_empty() { "no alias" } else { &link.alias })));
            }
        }
    }
    let configured = match made.is_some().then(|| user(netlink, subnet, &link)).transpose()?.flatten() {
        Some(user) => Ok(Err(user)),
        None => configure(netlink, owner, gateway, &link).map(Ok),
    };
    let is_new = made.is_some();
    if is_new && !matches!(configured, Ok(Ok(()))) {
        netlink.delete_link(link.index).map_err(device("delete", &name))?;
    }
    Ok(configured?.map(|()| GatewayDevice { subnet, gateway, names, index: link.index, is_new }))
}

fn claim(link: &Link, name: &str) -> Option<File> {
    (link.alias.is_empty() && link.kind == "tun").then(|| claim_tap(name).ok()).flatten()
}

fn find(netlink: &mut Netlink, name: &str) -> Result<Link, NetworkError> {
    let found = netlink.link(name).and_then(|link| link.ok_or_else(|| io::ErrorKind::NotFound.into()));
    found.map_err(device("find", name))
}

/// Finds another device with an address in the subnet, or a route to a part of it.
fn user(netlink: &mut Netlink, subnet: Ipv4Net, gateway_device: &Link) -> Result<Option<String>, NetworkError> {
    let addresses = netlink.addresses().map_err(device("list", "addresses"))?;
    let overlaps = |net: Ipv4Net| net.contains(&subnet.network()) || subnet.contains(&net.network());
    let mut users = addresses.into_iter().filter(|holder| overlaps(holder.net)).collect::<Vec<_>>();
    let routes = netlink.routes().map_err(device("list", "routes"))?;
    users.extend(
        routes
            .into_iter()
            .filter(|holder| subnet.contains(&holder.net.network()) && subnet.prefix_len() <= holder.net.prefix_len()),
    );
    let Some(holder) = users.into_iter().find(|holder| holder.index != gateway_device.index) else { return Ok(None) };
    let links = netlink.links().map_err(device("list", "devices"))?;
    let name = links.into_iter().find(|link| link.index == holder.index).map_or_else(|| "a device".to_owned(), |link| link.name);
    Ok(Some(format!("{name} ({})", holder.net)))
}

fn configure(netlink: &mut Netlink, owner: &str, gateway: Ipv4Addr, link: &Link) -> Result<(), NetworkError> {
    sysctl::no_ipv6(&link.name)?;
    let change = LinkChange { alias: Some(&alias(owner)), up: true, ..LinkChange::default() };
    netlink.change_link(link.index, change).map_err(device("configure", &link.name))?;
    netlink.add_address(link.index, gateway, 32).map_err(device("give the gateway's address to", &link.name))
}
