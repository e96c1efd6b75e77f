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

/// Ethernet's.
const MTU: u16 = 1500;

/// Makes and removes taps.
#[derive(Debug)]
pub(crate) struct Builtin {
    pub(crate) owner: String,
    pub(crate) anchor: GatewayDevice,
    pub(crate) limits: Limits,
    /// Whether packets may be redirected to the host's 127.0.0.1.
    pub(crate) to_loopback: bool,
    /// Numbers are given out in turn, so that a guest does not get the address of one that has just gone.
    pub(crate) next: AtomicU32,
    /// Taps that are being made: a sweep leaves them alone though their alias does not say yet whose they are.
    pub(crate) making: Mutex<BTreeSet<String>>,
}

impl Builtin {
    /// Makes a guest's tap, which only this user (root if absent) may open by its name. A failure leaves nothing.
    pub(crate) fn attach(&self, id: &str, opener: Option<u32>) -> Result<Attachment, NetworkError> {
        let mut netlink = Netlink::open().map_err(device("open netlink for", "a tap"))?;
        // The file is closed at the end: until then nobody else can attach to the tap, after it the device stays.
        let (number, making, tap) = self.number(|name, _address| create_tap(name))?;
        if let Err(source) = give_tap(&tap, opener.unwrap_or(0)) {
            self.undo(&mut netlink, number, &making.name);
            return Err(device("give away", &making.name)(source));
        }
        self.finish(&mut netlink, id, number)
    }

    /// Makes a namespace for a process and connects it. A failure leaves nothing.
    pub(crate) fn attach_namespace(&self, id: &str) -> Result<(Attachment, OwnedFd), NetworkError> {
        let mut netlink = Netlink::open().map_err(device("open netlink for", "a veth"))?;
        let mut namespace = Namespace::new()?;
        let (number, making, ()) = self.number(|name, address| netlink.create_veth(name, namespace.peer(address)))?;
        let attached = self.finish(&mut netlink, id, number)?;
        if let Err(error) = namespace.configure(attached.address, attached.gateway) {
            self.undo(&mut netlink, number, &making.name);
            return Err(error);
        }
        Ok((attached, namespace.into_fd()))
    }

    /// Configures a device that was just made, or removes it.
    fn finish(&self, netlink: &mut Netlink, id: &str, number: u32) -> Result<Attachment, NetworkError> {
        let name = self.anchor.names.tap(number);
        if let Err(error) = self.configure(netlink, id, number) {
            self.undo(netlink, number, &name);
            return Err(error);
        }
        let (address, gateway) = (self.anchor.names.address(number), self.anchor.gateway);
        Ok(Attachment {
            id: id.to_owned(),
            tap: name,
            netns: None,
            mac: mac(address),
            address,
            prefix: self.anchor.subnet.prefix_len(),
            gateway,
            gateway_mac: mac(gateway),
            mtu: MTU,
            nameservers: Vec::new(),
        })
    }

    fn undo(&self, netlink: &mut Netlink, number: u32, name: &str) {
        remove(netlink, name);
        remove(netlink, &self.anchor.names.queue(number));
    }

    /// Finds a free number by making its device: the kernel decides who was first.
    fn number<T>(
        &self,
        mut make: impl FnMut(&str, Ipv4Addr) -> io::Result<T>,
    ) -> Result<(u32, PendingDevice<'_>, T), NetworkError> {
        let names = &self.anchor.names;
        for _ in 0..=names.last() {
            let number = self.next.fetch_add(1, Ordering::Relaxed) % names.last() + 1;
            let address = names.address(number);
            if address == self.anchor.gateway {
                continue;
            }
            let making = PendingDevice::new(self, names.tap(number));
            match make(&making.name, address) {
                Ok(made) => return Ok((number, making, made)),
                Err(error) if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::AlreadyExists) => {}
                Err(source) => return Err(device("make", &making.name)(source)),
            }
        }
        Err(NetworkError::Full(self.anchor.subnet))
    }

    fn configure(&self, netlink: &mut Netlink, id: &str, number: u32) -> Result<(), NetworkError> {
        let name = self.anchor.names.tap(number);
        let gateway = self.anchor.gateway;
        let tap = index(netlink, &name)?;
        let alias = guest_alias(&self.owner, id);
        sysctl::guest(&name, self.to_loopback)?;
        if let Some(rate) = self.limits.to_guest {
            netlink.limit(tap, rate).map_err(device("limit", &name))?;
        }
        if let Some(rate) = self.limits.from_guest {
            // What arrives cannot wait on the tap itself: it is sent through a device with a queue and comes back from there.
            let queue = self.anchor.names.queue(number);
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
        let route = Route { index: tap, to: self.anchor.names.address(number), source: gateway };
        netlink.add_route(route).map_err(device("route to", &name))
    }

    fn making(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tap that is being made, known as such until this is dropped.
struct PendingDevice<'a> {
    builtin: &'a Builtin,
    name: String,
}

impl<'a> PendingDevice<'a> {
    fn new(builtin: &'a Builtin, name: String) -> Self {
        builtin.making().insert(name.clone());
        Self { builtin, name }
    }
}

impl Drop for PendingDevice<'_> {
    fn drop(&mut self) {
        self.builtin.making().remove(&self.name);
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

/// Puts a guest's device into the group of those that reach servers only.
pub(crate) fn restrict(attachment: &Attachment) -> Result<(), NetworkError> {
    let mut netlink = Netlink::open().map_err(device("open netlink for", &attachment.tap))?;
    let index = index(&mut netlink, &attachment.tap)?;
    let change = LinkChange { group: Some(RESTRICTED), up: true, ..LinkChange::default() };
    netlink.change_link(index, change).map_err(device("restrict", &attachment.tap))
}

/// Removes a guest's devices, which are told by their alias: a tap of that name that is by now another guest's stays.
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
