//! The built-in network: per guest a device and a route to its one address. A machine's device is a persistent tap, a process's the end of
//! a veth into its namespace. Everything here blocks for a few milliseconds.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nex_netlink::{LinkChange, Netlink, Route};
use nex_process::tap::{create_tap, give_tap};

use crate::attachment::Attachment;
use crate::config::Limits;
use crate::error::{NetworkError, device};
use crate::gateway::GatewayDevice;
use crate::names::{Names, guest_alias, mac};
use crate::namespace::Namespace;
use crate::rules::RESTRICTED;
use crate::sysctl;

/// MTU of Ethernet.
const MTU: u16 = 1500;

/// Makes and removes taps.
#[derive(Debug)]
pub(crate) struct Builtin {
    pub(crate) owner: String,
    pub(crate) gateway_device: GatewayDevice,
    pub(crate) limits: Limits,
    /// Whether packets may be redirected to the host's 127.0.0.1.
    pub(crate) to_loopback: bool,
    /// The next number to try. Numbers rotate, so that an address is not reused at once.
    pub(crate) next: AtomicU32,
    /// Devices that are being made: they have no alias yet, and a sweep must leave them alone.
    pub(crate) pending: Mutex<BTreeSet<String>>,
}

impl Builtin {
    /// Makes a guest's tap, which only this user (root if absent) may open by its name. A failure leaves nothing.
    pub(crate) fn attach(&self, id: &str, opener: Option<u32>) -> Result<Attachment, NetworkError> {
        let mut netlink = Netlink::open().map_err(device("open netlink for", "a tap"))?;
        // While the file is open nobody else can attach to the tap; the device stays after it is closed.
        let (number, pending, tap) = self.number(|name, _address| create_tap(name))?;
        if let Err(source) = give_tap(&tap, opener.unwrap_or(0)) {
            self.undo(&mut netlink, number, &pending.name);
            return Err(device("give away", &pending.name)(source));
        }
        self.finish(&mut netlink, id, number)
    }

    /// Makes a namespace for a process and connects it. A failure leaves nothing.
    pub(crate) fn attach_namespace(&self, id: &str) -> Result<(Attachment, OwnedFd), NetworkError> {
        let mut netlink = Netlink::open().map_err(device("open netlink for", "a veth"))?;
        let mut namespace = Namespace::new()?;
        let (number, pending, ()) = self.number(|name, address| netlink.create_veth(name, namespace.peer(address)))?;
        let attached = self.finish(&mut netlink, id, number)?;
        if let Err(error) = namespace.configure(attached.address, attached.gateway) {
            self.undo(&mut netlink, number, &pending.name);
            return Err(error);
        }
        Ok((attached, namespace.into_fd()))
    }

    /// Configures a device that was just made, or removes it.
    fn finish(&self, netlink: &mut Netlink, id: &str, number: u32) -> Result<Attachment, NetworkError> {
        let name = self.gateway_device.names.tap(number);
        if let Err(error) = self.configure(netlink, id, number) {
            self.undo(netlink, number, &name);
            return Err(error);
        }
        let (address, gateway) = (self.gateway_device.names.address(number), self.gateway_device.gateway);
        Ok(Attachment {
            id: id.to_owned(),
            tap: name,
            netns: None,
            mac: mac(address),
            address,
            prefix: self.gateway_device.subnet.prefix_len(),
            gateway,
            gateway_mac: mac(gateway),
            mtu: MTU,
            nameservers: Vec::new(),
            loopback_ports: BTreeSet::new(),
        })
    }

    /// Whether a connection that an earlier process of this owner made still stands, and is one of this network.
    pub(crate) fn readopt(&self, attachment: &Attachment) -> Result<bool, NetworkError> {
        let GatewayDevice { subnet, gateway, names, .. } = &self.gateway_device;
        let is_here = attachment.gateway == *gateway && subnet.contains(&attachment.address);
        if attachment.netns.is_some() || !is_here || !attachment.tap.starts_with(&names.tap_prefix()) {
            return Ok(false);
        }
        let mut netlink = Netlink::open().map_err(device("open netlink for", &attachment.tap))?;
        let link = netlink.link(&attachment.tap).map_err(device("find", &attachment.tap))?;
        let is_its = link.is_some_and(|link| link.alias == guest_alias(&self.owner, &attachment.id));
        if is_its {
            sysctl::guest(&attachment.tap, self.to_loopback)?;
        }
        Ok(is_its)
    }

    fn undo(&self, netlink: &mut Netlink, number: u32, name: &str) {
        remove(netlink, name);
        remove(netlink, &self.gateway_device.names.queue(number));
    }

    /// Finds a free number by creating its device, which fails if the name is used.
    fn number<T>(
        &self,
        mut make: impl FnMut(&str, Ipv4Addr) -> io::Result<T>,
    ) -> Result<(u32, PendingDevice<'_>, T), NetworkError> {
        let names = &self.gateway_device.names;
        for _ in 0..=names.last() {
            let number = self.next.fetch_add(1, Ordering::Relaxed) % names.last() + 1;
            let address = names.address(number);
            if address == self.gateway_device.gateway {
                continue;
            }
            let pending = PendingDevice::new(self, names.tap(number));
            match make(&pending.name, address) {
                Ok(made) => return Ok((number, pending, made)),
                Err(error) if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::AlreadyExists) => {}
                Err(source) => return Err(device("make", &pending.name)(source)),
            }
        }
        Err(NetworkError::Full(self.gateway_device.subnet))
    }

    fn configure(&self, netlink: &mut Netlink, id: &str, number: u32) -> Result<(), NetworkError> {
        let name = self.gateway_device.names.tap(number);
        let gateway = self.gateway_device.gateway;
        let tap = index(netlink, &name)?;
        let alias = guest_alias(&self.owner, id);
        sysctl::guest(&name, self.to_loopback)?;
        if let Some(rate) = self.limits.to_guest {
            netlink.limit(tap, rate).map_err(device("limit", &name))?;
        }
        if let Some(rate) = self.limits.from_guest {
            // A tap has no queue for incoming packets, so they pass through an ifb device that has one.
            let queue = self.gateway_device.names.queue(number);
            netlink.create_link(&queue, "ifb").map_err(device("make", &queue))?;
            let queue_index = index(netlink, &queue)?;
            sysctl::no_ipv6(&queue)?;
            netlink.limit(queue_index, rate).map_err(device("limit", &queue))?;
            let change = LinkChange { alias: Some(&alias), up: true, ..LinkChange::default() };
            netlink.change_link(queue_index, change).map_err(device("configure", &queue))?;
            netlink.redirect(tap, queue_index).map_err(device("redirect", &name))?;
        }
        let change =
            LinkChange { alias: Some(&alias), mac: Some(mac(gateway)), mtu: Some(MTU), up: true, ..LinkChange::default() };
        netlink.change_link(tap, change).map_err(device("configure", &name))?;
        netlink.add_address(tap, gateway, 32).map_err(device("give the gateway's address to", &name))?;
        let route = Route { index: tap, to: self.gateway_device.names.address(number), source: gateway };
        netlink.add_route(route).map_err(device("route to", &name))
    }

    fn pending(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device that is being made; registered as pending until this is dropped.
struct PendingDevice<'a> {
    builtin: &'a Builtin,
    name: String,
}

impl<'a> PendingDevice<'a> {
    fn new(builtin: &'a Builtin, name: String) -> Self {
        builtin.pending().insert(name.clone());
        Self { builtin, name }
    }
}

impl Drop for PendingDevice<'_> {
    fn drop(&mut self) {
        self.builtin.pending().remove(&self.name);
    }
}

fn index(netlink: &mut Netlink, name: &str) -> Result<i32, NetworkError> {
    let found = netlink.link(name).and_then(|link| link.ok_or_else(|| io::ErrorKind::NotFound.into()));
    found.map(|link| link.index).map_err(device("find", name))
}

fn remove(netlink: &mut Netlink, name: &str) {
    let gone = netlink.link(name).and_then(|link| link.map_or(Ok(()), |link| netlink.delete_link(link.index)));
    if let Err(error) = gone {
        tracing::warn!(device = name, %error, "a device could not be removed; a later sweep tries again");
    }
}

/// Puts a guest's device into the group of restricted guests, which reach servers only.
pub(crate) fn restrict(attachment: &Attachment) -> Result<(), NetworkError> {
    let mut netlink = Netlink::open().map_err(device("open netlink for", &attachment.tap))?;
    let index = index(&mut netlink, &attachment.tap)?;
    let change = LinkChange { group: Some(RESTRICTED), up: true, ..LinkChange::default() };
    netlink.change_link(index, change).map_err(device("restrict", &attachment.tap))
}

/// Removes a guest's devices by their alias: a tap of the same name may by now belong to another guest.
pub(crate) fn detach(owner: &str, attachment: &Attachment) -> Result<(), NetworkError> {
    let alias = guest_alias(owner, &attachment.id);
    let mut netlink = Netlink::open().map_err(device("open netlink for", &attachment.tap))?;
    let names = [Some(attachment.tap.clone()), Names::queue_of(&attachment.tap)];
    for name in names.into_iter().flatten() {
        let link = netlink.link(&name).map_err(device("find", &name))?;
        if let Some(link) = link.filter(|link| link.alias == alias) {
            netlink.delete_link(link.index).map_err(device("delete", &name))?;
        }
    }
    Ok(())
}
