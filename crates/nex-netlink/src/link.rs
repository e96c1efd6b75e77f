//! Network devices: find, create, change, delete.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::message::{Message, NLM_F_CREATE, NLM_F_EXCL, attributes, i32_at, text, u32_at};
use crate::socket::Netlink;

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
pub struct Link {
    /// Its index.
    pub index: i32,
    /// Its name.
    pub name: String,
    /// Its alias; empty if it has none.
    pub alias: String,
    /// `tun`, `veth`, ...; empty for hardware.
    pub kind: String,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// Its MTU.
    pub mtu: u16,
}

/// The far end of a veth.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The namespace that it goes to.
    pub netns: BorrowedFd<'a>,
}

/// A change to a device, made in one request.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinkChange<'a> {
    /// A new alias.
    pub alias: Option<&'a str>,
    /// A new hardware address.
    pub mac: Option<[u8; 6]>,
    /// A new MTU.
    pub mtu: Option<u16>,
    /// A new device group, which packet filters match.
    pub group: Option<u32>,
    /// Whether to bring it up; otherwise its state stays.
    pub up: bool,
}

impl Netlink {
    /// Every device of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let replies = self.request(Message::dump(RTM_GETLINK).fixed(&header(0, 0, 0)))?;
        Ok(replies.iter().filter(|reply| reply.kind == RTM_NEWLINK).filter_map(|reply| link(&reply.body)).collect())
    }

    /// The device of that name, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        match self.request(Message::change(RTM_GETLINK, 0).fixed(&header(0, 0, 0)).text(IFLA_IFNAME, name)) {
            Ok(replies) => Ok(replies.iter().find_map(|reply| link(&reply.body))),
            Err(error) if is_no_device(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a device of a kind that needs only a name.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create_link(&mut self, name: &str, kind: &str) -> io::Result<()> {
        let message = Message::change(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL).fixed(&header(0, 0, 0)).text(IFLA_IFNAME, name);
        self.request_ack(message.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, kind)))
    }

    /// Creates a pair of connected devices, the peer in another namespace. Fails with `EEXIST` if the name is used.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create_veth(&mut self, name: &str, peer: Peer<'_>) -> io::Result<()> {
        let message = Message::change(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL).fixed(&header(0, 0, 0)).text(IFLA_IFNAME, name);
        self.request_ack(message.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |inner| {
                    let inner = inner.fixed(&header(0, 0, 0)).text(IFLA_IFNAME, peer.name).attribute(IFLA_ADDRESS, &peer.mac);
                    inner.attribute(IFLA_NET_NS_FD, &peer.netns.as_raw_fd().to_ne_bytes())
                })
            })
        }))
    }

    /// Changes a device.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn change_link(&mut self, index: i32, to: LinkChange<'_>) -> io::Result<()> {
        let flags = if to.up { IFF_UP } else { 0 };
        let mut message = Message::change(RTM_NEWLINK, 0).fixed(&header(index, flags, flags));
        let mut add = |kind, value: Option<Vec<u8>>| {
            if let Some(value) = value {
                message = message.clone().attribute(kind, &value);
            }
        };
        add(IFLA_IFALIAS, to.alias.map(|alias| alias.as_bytes().to_vec()));
        add(IFLA_ADDRESS, to.mac.map(|mac| mac.to_vec()));
        add(IFLA_MTU, to.mtu.map(|mtu| u32::from(mtu).to_ne_bytes().to_vec()));
        add(IFLA_GROUP, to.group.map(|group| group.to_ne_bytes().to_vec()));
        self.request_ack(message)
    }

    /// Takes a device down.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_down(&mut self, index: i32) -> io::Result<()> {
        self.request_ack(Message::change(RTM_NEWLINK, 0).fixed(&header(index, 0, IFF_UP)))
    }

    /// Deletes a device; one that is gone already is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_link(&mut self, index: i32) -> io::Result<()> {
        match self.request_ack(Message::change(RTM_DELLINK, 0).fixed(&header(index, 0, 0))) {
            Err(error) if is_no_device(&error) => Ok(()),
            result => result,
        }
    }
}

fn is_no_device(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// `struct ifinfomsg`; only the flags in the mask change.
fn header(index: i32, flags: u32, mask: u32) -> [u8; FIXED] {
    let mut header = [0; FIXED];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&mask.to_ne_bytes());
    header
}

pub(crate) fn link(body: &[u8]) -> Option<Link> {
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
