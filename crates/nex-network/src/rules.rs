//! The packet filter's rules as text: one table per owner, unchanged when guests come and go.
//!
//! Guests are matched by the name of their tap or the group of their veth, never by an address that they could forge. Every chain runs
//! before the usual chains of others; a drop here is final, an accepted packet may still be dropped by others.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::{Allow, Policy};

/// Nets that are not the internet: IANA's special-purpose registry, and the public address at which Azure serves metadata.
const NOT_INTERNET: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 168.63.129.16, 169.254.0.0/16, 172.16.0.0/12, \
                            192.0.0.0/24, 192.0.2.0/24, 192.168.0.0/16, 198.18.0.0/15, 198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/3";

/// The group of the devices of restricted guests. As an address it is a public one, so it is no net's group.
pub(crate) const RESTRICTED: u32 = 0x6e65_7866;

/// How packets of guests are recognized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guests {
    /// By the beginning of their device's name.
    Named(String),
    /// By the group of their device.
    Group(u32),
}

/// The inputs of the rules.
#[derive(Debug, Clone)]
pub(crate) struct Rules<'a> {
    pub(crate) owner: &'a str,
    pub(crate) guests: Guests,
    pub(crate) subnet: Ipv4Net,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) policy: &'a Policy,
}

/// The owner's table.
pub(crate) fn table(owner: &str) -> String {
    format!("nex_{owner}")
}

/// Lets guests reach a port of the gateway.
pub(crate) fn permit(owner: &str, port: u16) -> String {
    format!("add element inet {} gateway_ports {{ {port} }}\n", table(owner))
}

/// The table of a process's namespace, replacing an earlier one: redirects ports of its own 127.0.0.1 to the host's loopback, through
/// the gateway.
pub(crate) fn loopback(gateway: Ipv4Addr, ports: &BTreeSet<u16>) -> String {
    let none = "table ip nex { }\ndelete table ip nex\n";
    if ports.is_empty() {
        return none.to_owned();
    }
    let ports = list(ports);
    format!(
        "{none}table ip nex {{\n\tchain redirected {{\n\t\ttype nat hook output priority -100; policy accept;\n\
         \t\tip daddr 127.0.0.1 tcp dport {{ {ports} }} dnat to {gateway}\n\t}}\n\
         \tchain masqueraded {{\n\t\ttype nat hook postrouting priority 100; policy accept;\n\
         \t\toifname != \"lo\" ip saddr 127.0.0.0/8 masquerade\n\t}}\n}}\n"
    )
}

impl Guests {
    fn from(&self) -> String {
        match self {
            Self::Named(prefix) => format!("iifname \"{prefix}*\""),
            Self::Group(group) => format!("iifgroup {group}"),
        }
    }

    fn not_from(&self) -> String {
        self.from().replacen(' ', " != ", 1)
    }

    fn to(&self) -> String {
        self.from().replacen('i', "o", 1)
    }

    fn not_to(&self) -> String {
        self.to().replacen(' ', " != ", 1)
    }
}

impl Rules<'_> {
    /// The whole table, replacing one of the same owner in the same transaction.
    pub(crate) fn text(&self) -> String {
        let table = table(self.owner);
        let mut text = format!("table inet {table} {{ }}\ndelete table inet {table}\ntable inet {table} {{\n");
        text.push_str("\tset gateway_ports {\n\t\ttype inet_service\n\t}\n");
        self.chain(&mut text, "spoofed", "filter hook prerouting priority raw - 10", &self.spoofed());
        self.chain(&mut text, "redirected", "nat hook prerouting priority dstnat - 10", &self.redirected());
        self.chain(&mut text, "to_host", "filter hook input priority filter - 10", &self.to_host());
        self.chain(&mut text, "beyond", "filter hook forward priority filter - 10", &self.beyond());
        self.chain(&mut text, "masqueraded", "nat hook postrouting priority srcnat - 10", &self.masqueraded());
        text.push_str("}\n");
        text
    }

    #[expect(clippy::unused_self, reason = "reads as part of the table")]
    fn chain(&self, text: &mut String, name: &str, hook: &str, rules: &[String]) {
        if rules.is_empty() {
            return;
        }
        // Writing to a String cannot fail.
        let _written = writeln!(text, "\tchain {name} {{\n\t\ttype {hook}; policy accept;");
        for rule in rules {
            let _written = writeln!(text, "\t\t{rule}");
        }
        text.push_str("\t}\n");
    }

    /// Runs before connection tracking, so that forged packets fill no table.
    fn spoofed(&self) -> Vec<String> {
        let from = self.guests.from();
        vec![format!("{from} meta nfproto ipv6 drop"), format!("{from} fib saddr . iif oif missing drop")]
    }

    fn redirected(&self) -> Vec<String> {
        let ports = self.policy.loopback_ports();
        if ports.is_empty() {
            return Vec::new();
        }
        let (from, gateway) = (self.guests.from(), self.gateway);
        vec![format!("{from} ip daddr {gateway} tcp dport {{ {} }} dnat ip to 127.0.0.1", list(&ports))]
    }

    /// Accepts what was sent to these ports of the gateway and redirected.
    fn accept_redirected(&self, ports: &BTreeSet<u16>) -> Option<String> {
        let (from, gateway) = (self.guests.from(), self.gateway);
        let redirected = "ct status dnat ip daddr 127.0.0.1";
        (!ports.is_empty())
            .then(|| format!("{from} {redirected} tcp dport {{ {} }} ct original ip daddr {gateway} accept", list(ports)))
    }

    /// Accepts the servers that even restricted guests reach, then drops all other packets of restricted guests.
    fn servers_only(&self) -> Vec<String> {
        let from = self.guests.from();
        let remote = self.policy.servers.iter().filter(|server| !server.ip().is_loopback());
        let mut rules: Vec<_> =
            remote.map(|server| format!("{from} ip daddr {} tcp dport {} accept", server.ip(), server.port())).collect();
        if let Guests::Named(_) = self.guests {
            rules.push(format!("{from} iifgroup {RESTRICTED} drop"));
        }
        rules
    }

    fn to_host(&self) -> Vec<String> {
        let (from, gateway) = (self.guests.from(), self.gateway);
        let mut rules = vec![
            // The host's own packets arrive on lo.
            format!("iifname != \"lo\" {} ip daddr {gateway} drop", self.guests.not_from()),
            format!("{from} ct state established,related accept"),
            format!("{from} ip daddr {gateway} tcp dport @gateway_ports accept"),
        ];
        let servers = self.policy.servers.iter().filter(|server| server.ip().is_loopback()).map(std::net::SocketAddrV4::port);
        rules.extend(self.accept_redirected(&servers.collect()));
        rules.extend(self.servers_only());
        rules.push(format!("{from} ip daddr {gateway} icmp type echo-request limit rate 100/second accept"));
        rules.extend(self.accept_redirected(&self.policy.host_ports.iter().copied().collect()));
        // An address named alone and with a port may be the host's own: a server that listens on another device's address.
        for (net, port) in self.policy.allow.iter().filter_map(Allow::service) {
            rules.push(format!("{from} ip daddr {} meta l4proto {{ tcp, udp }} th dport {port} accept", net.addr()));
        }
        rules.push(format!("{from} drop"));
        rules
    }

    fn beyond(&self) -> Vec<String> {
        let (from, to) = (self.guests.from(), self.guests.to());
        let mut rules = vec![format!("{from} {to} drop"), format!("{from} ct state established,related accept")];
        rules.extend(self.servers_only());
        for allow in &self.policy.allow {
            rules.push(match allow {
                Allow::Internet => format!("{from} ip daddr != {{ {NOT_INTERNET} }} accept"),
                Allow::Net { net, port: None } => format!("{from} ip daddr {} accept", net.trunc()),
                Allow::Net { net, port: Some(port) } => {
                    format!("{from} ip daddr {} meta l4proto {{ tcp, udp }} th dport {port} accept", net.trunc())
                }
            });
        }
        rules.push(format!("{from} drop"));
        rules.push(format!("{to} ct state established,related accept"));
        rules.push(format!("{to} drop"));
        rules
    }

    fn masqueraded(&self) -> Vec<String> {
        if !self.policy.leads_beyond() {
            return Vec::new();
        }
        let (subnet, gateway, not_to) = (self.subnet, self.gateway, self.guests.not_to());
        vec![format!("ip saddr {subnet} ip saddr != {gateway} oifname != \"lo\" {not_to} masquerade")]
    }
}

fn list(ports: &BTreeSet<u16>) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guests: Guests, policy: &Policy, golden: &str) {
        let subnet = "192.168.127.0/24".parse().unwrap();
        let rules = Rules { owner: "n1", guests, subnet, gateway: Ipv4Addr::new(192, 168, 127, 1), policy };
        assert_eq!(rules.text(), golden);
    }

    #[test]
    fn the_rules_of_a_closed_network_are_the_golden_ones() {
        check(Guests::Named("nx127-".to_owned()), &Policy::default(), include_str!("../tests/golden/closed.nft"));
    }

    #[test]
    fn the_rules_of_an_open_network_are_the_golden_ones() {
        let net = Allow::Net { net: "10.1.2.3/16".parse().unwrap(), port: None };
        let port = Allow::Net { net: "10.9.0.5/32".parse().unwrap(), port: Some(53) };
        let servers = vec!["127.0.0.1:4222".parse().unwrap(), "10.9.0.6:4222".parse().unwrap()];
        let policy = Policy { allow: vec![Allow::Internet, net, port], host_ports: vec![80, 80], servers };
        check(Guests::Named("nx127-".to_owned()), &policy, include_str!("../tests/golden/open.nft"));
        check(Guests::Group(3_232_268_032), &policy, include_str!("../tests/golden/open-group.nft"));
    }
}
