//! Devices: find, make, change, delete.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{attributes, i32_at, text, u32_at};
use super::{NLM_F_CREATE, NLM_F_EXCL, Netlink, change, dump};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 1;
/// Length of `struct ifinfomsg`.
const FIXED: usize = 16;

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: i32,
    pub(crate) name: String,
    pub(crate) alias: String,
    /// `tun`, `veth`, ...; empty for hardware.
    pub(crate) kind: String,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: u16,
}

/// The far end of a veth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: [u8; 6],
    pub(crate) netns: BorrowedFd<'a>,
}

/// What is to be changed about a device, in one request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Change<'a> {
    pub(crate) alias: Option<&'a str>,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: Option<u16>,
    /// The number by which the packet filter knows it.
    pub(crate) group: Option<u32>,
    pub(crate) up: bool,
}

impl Netlink {
    /// Every device of the namespace.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let replies = self.ask(dump(RTM_GETLINK).fixed(&header(0, 0)))?;
        Ok(replies.iter().filter(|reply| reply.kind == RTM_NEWLINK).filter_map(|reply| link(&reply.body)).collect())
    }

    /// The device of that name, if there is one.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        match self.ask(change(RTM_GETLINK, 0).fixed(&header(0, 0)).text(IFLA_IFNAME, name)) {
            Ok(replies) => Ok(replies.iter().find_map(|reply| link(&reply.body))),
            Err(error) if is_no_device(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a device of a kind that needs no more than a name.
    pub(crate) fn make_link(&mut self, name: &str, kind: &str) -> io::Result<()> {
        let message = change(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL).fixed(&header(0, 0)).text(IFLA_IFNAME, name);
        self.tell(message.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, kind)))
    }

    /// Makes a pair of connected devices, the peer in another namespace. The name of the one here is taken by whoever is first.
    pub(crate) fn make_veth(&mut self, name: &str, peer: Peer<'_>) -> io::Result<()> {
        let message = change(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL).fixed(&header(0, 0)).text(IFLA_IFNAME, name);
        self.tell(message.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |inner| {
                    let inner = inner.fixed(&header(0, 0)).text(IFLA_IFNAME, peer.name).attribute(IFLA_ADDRESS, &peer.mac);
                    inner.attribute(IFLA_NET_NS_FD, &peer.netns.as_raw_fd().to_ne_bytes())
                })
            })
        }))
    }

    /// Changes a device.
    pub(crate) fn change_link(&mut self, index: i32, to: Change<'_>) -> io::Result<()> {
        let mut message = change(RTM_NEWLINK, 0).fixed(&header(index, if to.up { IFF_UP } else { 0 }));
        let mut add = |kind, value: Option<Vec<u8>>| {
            if let Some(value) = value {
                message = message.clone().attribute(kind, &value);
            }
        };
        add(IFLA_IFALIAS, to.alias.map(|alias| alias.as_bytes().to_vec()));
        add(IFLA_ADDRESS, to.mac.map(|mac| mac.to_vec()));
        add(IFLA_MTU, to.mtu.map(|mtu| u32::from(mtu).to_ne_bytes().to_vec()));
        add(IFLA_GROUP, to.group.map(|group| group.to_ne_bytes().to_vec()));
        self.tell(message)
    }

    /// Deletes a device; one that is gone already is fine.
    pub(crate) fn delete_link(&mut self, index: i32) -> io::Result<()> {
        match self.tell(change(RTM_DELLINK, 0).fixed(&header(index, 0))) {
            Err(error) if is_no_device(&error) => Ok(()),
            result => result,
        }
    }
}

fn is_no_device(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// `struct ifinfomsg`: flags that are set are also those that change.
fn header(index: i32, flags: u32) -> [u8; FIXED] {
    let mut header = [0; FIXED];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

pub(super) fn link(body: &[u8]) -> Option<Link> {
    let index = i32_at(body, 4)?;
    let mut link = Link { index, name: String::new(), alias: String::new(), kind: String::new(), mac: None, mtu: u16::MAX };
    for (kind, value) in attributes(body, FIXED) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_IFALIAS => link.alias = text(value),
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_MTU => link.mtu = u32_at(value, 0).and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(u16::MAX),
            IFLA_LINKINFO => {
                let found = attributes(value, 0).into_iter().find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = found.map(|(_, value)| text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}
