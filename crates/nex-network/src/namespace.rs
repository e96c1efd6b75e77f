//! A process's connection: an unnamed network namespace, and a veth into it.
//!
//! The namespace lives as long as a process in it or a descriptor of it, and the veth is removed with it: nothing is left after a crash. Everything here blocks for a few milliseconds.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nex_netlink::{LinkChange, Netlink, Peer, Route};
use nix::sched::{CloneFlags, unshare};

use crate::error::{NetworkError, device};
use crate::names::mac;
use crate::sysctl;

/// The process's own device.
const DEVICE: &str = "eth0";

/// A new namespace, and a netlink socket in it.
pub(crate) struct Namespace {
    file: OwnedFd,
    netlink: Netlink,
}

impl Namespace {
    /// Makes one, on a thread of its own.
    pub(crate) fn new() -> Result<Self, NetworkError> {
        let make = || {
            let failed = || device("make", "a network namespace");
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| failed()(errno.into()))?;
            sysctl::namespace()?;
            let file = File::open("/proc/thread-self/ns/net").map_err(failed())?;
            Ok(Self { file: file.into(), netlink: Netlink::open().map_err(failed())? })
        };
        let made = std::thread::scope(|scope| scope.spawn(make).join());
        made.unwrap_or_else(|_panic| Err(device("make", "a network namespace")(io::ErrorKind::Other.into())))
    }

    /// The far end of the veth.
    pub(crate) fn peer(&self, address: Ipv4Addr) -> Peer<'_> {
        Peer { name: DEVICE, mac: mac(address), netns: self.fd() }
    }

    /// Configures the process's address and its default route.
    pub(crate) fn configure(&mut self, address: Ipv4Addr, gateway: Ipv4Addr) -> Result<(), NetworkError> {
        let netlink = &mut self.netlink;
        let up = LinkChange { up: true, ..LinkChange::default() };
        for name in ["lo", DEVICE] {
            let link = netlink.link(name).and_then(|link| link.ok_or_else(|| io::ErrorKind::NotFound.into()));
            let index = link.map_err(device("find", name))?.index;
            netlink.change_link(index, up).map_err(device("configure", name))?;
            if name == DEVICE {
                netlink.add_address(index, address, 32).map_err(device("give an address to", name))?;
                let route = Route { index, to: gateway, source: address };
                netlink.add_route(route).map_err(device("route the gateway by", name))?;
                netlink.add_default_route(index, gateway).map_err(device("route everything by", name))?;
            }
        }
        Ok(())
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.file
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
