//! The four things an init asks of the kernel's network: a link up or down, an address on or off it, a default route.
//!
//! Written out instead of taken from a library: four fixed messages are less than what a general one brings into every guest.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

const HEADER: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
/// The gateway is there even if no address says so: the prefix may be as narrow as the guest itself.
const RTNH_F_ONLINK: u32 = 4;

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

/// A conversation with the kernel.
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
        Ok(Self(socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?))
    }

    /// Takes a link up or down.
    pub(super) fn set_up(&self, link: u32, up: bool) -> io::Result<()> {
        let flag = libc::IFF_UP.unsigned_abs();
        self.ask(libc::RTM_NEWLINK, 0, &link_body(link, if up { flag } else { 0 }, flag))
    }

    /// Gives a link its address and largest packet; it must be down.
    pub(super) fn set_link(&self, link: u32, mac: Mac, mtu: u16) -> io::Result<()> {
        let mut body = link_body(link, 0, 0);
        attribute(&mut body, IFLA_ADDRESS, &mac);
        attribute(&mut body, IFLA_MTU, &u32::from(mtu).to_ne_bytes());
        self.ask(libc::RTM_NEWLINK, 0, &body)
    }

    /// Adds an address to a link.
    pub(super) fn add_address(&self, link: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        self.ask(libc::RTM_NEWADDR, flags, &address_body(link, address, prefix))
    }

    /// Takes an address from a link.
    pub(super) fn remove_address(&self, link: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        self.ask(libc::RTM_DELADDR, 0, &address_body(link, address, prefix))
    }

    /// Sends everything that is not on the link to the gateway.
    pub(super) fn add_default_route(&self, link: u32, gateway: Ipv4Addr) -> io::Result<()> {
        let inet = family();
        let mut body = vec![inet, 0, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST];
        body.extend(RTNH_F_ONLINK.to_ne_bytes());
        attribute(&mut body, RTA_OIF, &link.to_ne_bytes());
        attribute(&mut body, RTA_GATEWAY, &gateway.octets());
        self.ask(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &body)
    }

    /// Sends one request and reads its one answer.
    fn ask(&self, kind: u16, flags: libc::c_int, body: &[u8]) -> io::Result<()> {
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK).map_err(io::Error::other)?;
        let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        // Sequence number and port: there is one request at a time, and the kernel knows the port.
        message.extend([0; 8]);
        message.extend(body);
        sendto(self.0.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let count = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        outcome(answer.get(..count).unwrap_or_default())
    }
}

/// Reads an acknowledgement: an error message whose error may be 0.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.first_chunk()).map(|bytes| i32::from(u16::from_ne_bytes(*bytes)));
    let code = answer.get(HEADER..).and_then(|bytes| bytes.first_chunk()).map(|bytes| i32::from_ne_bytes(*bytes));
    match (kind, code) {
        (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is no acknowledgement")),
    }
}

/// `struct ifinfomsg`.
fn link_body(link: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend([link, flags, change].into_iter().flat_map(u32::to_ne_bytes));
    body
}

/// `struct ifaddrmsg` with the address as the link's own and as its prefix.
fn address_body(link: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![family(), prefix, 0, libc::RT_SCOPE_UNIVERSE];
    body.extend(link.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &address.octets());
    attribute(&mut body, IFA_ADDRESS, &address.octets());
    body
}

fn family() -> u8 {
    u8::try_from(libc::AF_INET).unwrap_or_default()
}

/// Adds `struct rtattr` with its value, filled up to four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_fills_its_last_word() {
        let mut body = Vec::new();
        attribute(&mut body, IFLA_ADDRESS, &[1, 2, 3, 4, 5, 6]);
        assert_eq!((body.len(), &body[..4], &body[10..]), (12, &[10, 0, 1, 0][..], &[0, 0][..]));
    }

    #[test]
    fn the_kernels_no_is_an_error_and_so_is_an_answer_that_is_none() {
        let netlink = Netlink::open().unwrap();
        let error = netlink.set_up(u32::MAX >> 1, true).unwrap_err();
        // Root is told that there is no such link, others that they may not.
        assert!(matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EPERM)), "{error}");
        assert!(outcome(&[]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_answer_is_too_strange(answer in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            drop(outcome(&answer));
        }
    }
}
