//! Addresses and routes, IPv4.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::message::{Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, attributes, i32_at, u8_at};
use crate::socket::Netlink;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const AF_INET: u8 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
/// The gateway is reachable on the link even if no address of the device says so.
const RTNH_F_ONLINK: u32 = 4;

/// An address of a device with its net, or a route to a net through a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteEntry {
    /// The device.
    pub index: i32,
    /// The net.
    pub net: Ipv4Net,
}

/// A route to one address.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The device that leads there.
    pub index: i32,
    /// The address.
    pub to: Ipv4Addr,
    /// The source address of the host's own packets to it.
    pub source: Ipv4Addr,
}

impl Netlink {
    /// Adds an address to a device; one that it has already is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_address(&mut self, index: i32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let message = Message::change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
        match self.request_ack(with_address(message, index, address, prefix)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    /// Removes an address from a device.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_address(&mut self, index: i32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        self.request_ack(with_address(Message::change(RTM_DELADDR, 0), index, address, prefix))
    }

    /// Adds a route to one address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_route(&mut self, route: Route) -> io::Result<()> {
        let header = [AF_INET, 32, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST, 0, 0, 0, 0];
        let message = Message::change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL).fixed(&header);
        let message = message.attribute(RTA_DST, &route.to.octets()).attribute(RTA_OIF, &route.index.to_ne_bytes());
        self.request_ack(message.attribute(RTA_PREFSRC, &route.source.octets()))
    }

    /// Routes everything else through a gateway, which may be outside the device's net. An older default route is replaced.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_default_route(&mut self, index: i32, gateway: Ipv4Addr) -> io::Result<()> {
        let mut header = [AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0, 0, 0, 0];
        header[8..12].copy_from_slice(&RTNH_F_ONLINK.to_ne_bytes());
        let message = Message::change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE).fixed(&header);
        self.request_ack(message.attribute(RTA_OIF, &index.to_ne_bytes()).attribute(RTA_GATEWAY, &gateway.octets()))
    }

    /// Every address with its net.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn addresses(&mut self) -> io::Result<Vec<RouteEntry>> {
        let replies = self.request(Message::dump(RTM_GETADDR).fixed(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]))?;
        Ok(replies.iter().filter_map(|reply| address(&reply.body)).collect())
    }

    /// Every route of the main table to a net, without the default route.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn routes(&mut self) -> io::Result<Vec<RouteEntry>> {
        let replies = self.request(Message::dump(RTM_GETROUTE).fixed(&[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))?;
        Ok(replies.iter().filter_map(|reply| route(&reply.body)).collect())
    }
}

/// Appends `struct ifaddrmsg` and the address.
fn with_address(message: Message, index: i32, address: Ipv4Addr, prefix: u8) -> Message {
    let mut header = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    message.fixed(&header).attribute(IFA_LOCAL, &address.octets()).attribute(IFA_ADDRESS, &address.octets())
}

pub(crate) fn address(body: &[u8]) -> Option<RouteEntry> {
    let prefix = u8_at(body, 1)?;
    let found = attributes(body, 8);
    let address = found.iter().find(|(kind, _)| *kind == IFA_LOCAL)?.1;
    Some(RouteEntry { index: i32_at(body, 4)?, net: net(address, prefix)? })
}

pub(crate) fn route(body: &[u8]) -> Option<RouteEntry> {
    if u8_at(body, 4)? != RT_TABLE_MAIN {
        return None;
    }
    let prefix = u8_at(body, 1)?;
    let found = attributes(body, 12);
    let to = found.iter().find(|(kind, _)| *kind == RTA_DST)?.1;
    let index = found.iter().find(|(kind, _)| *kind == RTA_OIF).and_then(|(_, value)| i32_at(value, 0));
    Some(RouteEntry { index: index.unwrap_or(0), net: net(to, prefix)? })
}

fn net(address: &[u8], prefix: u8) -> Option<Ipv4Net> {
    let octets: [u8; 4] = address.try_into().ok()?;
    Ipv4Net::new(Ipv4Addr::from(octets), prefix).ok()
}
