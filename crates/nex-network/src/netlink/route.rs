//! Addresses and routes, IPv4.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::message::{attributes, i32_at, u8_at};
use super::{NLM_F_CREATE, NLM_F_EXCL, Netlink, change, dump};

const RTM_NEWADDR: u16 = 20;
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

/// A device that holds an address or a route into a net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) index: i32,
    pub(crate) net: Ipv4Net,
}

/// A route to one guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) index: i32,
    pub(crate) to: Ipv4Addr,
    /// The host's address that its own packets to the guest carry.
    pub(crate) source: Ipv4Addr,
}

impl Netlink {
    /// Gives a device an address without a net; one that it has already is fine.
    pub(crate) fn add_address(&mut self, index: i32, address: Ipv4Addr) -> io::Result<()> {
        let mut header = [AF_INET, 32, 0, 0, 0, 0, 0, 0];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let message = change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL).fixed(&header);
        match self.tell(message.attribute(IFA_LOCAL, &address.octets()).attribute(IFA_ADDRESS, &address.octets())) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    /// Routes to one guest.
    pub(crate) fn add_route(&mut self, route: Route) -> io::Result<()> {
        let header = [AF_INET, 32, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST, 0, 0, 0, 0];
        let message = change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL).fixed(&header);
        let message = message.attribute(RTA_DST, &route.to.octets()).attribute(RTA_OIF, &route.index.to_ne_bytes());
        self.tell(message.attribute(RTA_PREFSRC, &route.source.octets()))
    }

    /// Routes everything else through a gateway, to which there must be a route already.
    pub(crate) fn add_default_route(&mut self, index: i32, gateway: Ipv4Addr) -> io::Result<()> {
        let header = [AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0, 0, 0, 0];
        let message = change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL).fixed(&header);
        self.tell(message.attribute(RTA_OIF, &index.to_ne_bytes()).attribute(RTA_GATEWAY, &gateway.octets()))
    }

    /// Every address with its net.
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<Holder>> {
        let replies = self.ask(dump(RTM_GETADDR).fixed(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]))?;
        Ok(replies.iter().filter_map(|reply| address(&reply.body)).collect())
    }

    /// Every route of the main table to a net, the default route left out.
    pub(crate) fn routes(&mut self) -> io::Result<Vec<Holder>> {
        let replies = self.ask(dump(RTM_GETROUTE).fixed(&[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))?;
        Ok(replies.iter().filter_map(|reply| route(&reply.body)).collect())
    }
}

pub(super) fn address(body: &[u8]) -> Option<Holder> {
    let prefix = u8_at(body, 1)?;
    let found = attributes(body, 8);
    let address = found.iter().find(|(kind, _)| *kind == IFA_LOCAL)?.1;
    Some(Holder { index: i32_at(body, 4)?, net: net(address, prefix)? })
}

pub(super) fn route(body: &[u8]) -> Option<Holder> {
    if u8_at(body, 4)? != RT_TABLE_MAIN {
        return None;
    }
    let prefix = u8_at(body, 1)?;
    let found = attributes(body, 12);
    let to = found.iter().find(|(kind, _)| *kind == RTA_DST)?.1;
    let index = found.iter().find(|(kind, _)| *kind == RTA_OIF).and_then(|(_, value)| i32_at(value, 0));
    Some(Holder { index: index.unwrap_or(0), net: net(to, prefix)? })
}

fn net(address: &[u8], prefix: u8) -> Option<Ipv4Net> {
    let octets: [u8; 4] = address.try_into().ok()?;
    Ipv4Net::new(Ipv4Addr::from(octets), prefix).ok()
}
