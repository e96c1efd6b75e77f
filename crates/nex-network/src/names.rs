//! Names of devices: the name contains subnet and guest, the alias contains owner and id.
//!
//! | device | name | alias |
//! |---|---|---|
//! | gateway device: holds the gateway's address; its name is the lock on the subnet | `nex127` | `nex:<owner>` |
//! | tap of guest 5, whose address ends with .5 | `nx127-5` | `nex:<owner>:<id>` |
//! | queue for what that guest sends | `ni127-5` | `nex:<owner>:<id>` |
//! | host's end of a plug-in's veth | the plug-in's | `nex:<owner>:<id>` |

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The names of a subnet's devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    label: String,
    subnet: Ipv4Net,
}

impl Names {
    /// 192.168.127.0/24 is `127`; any other net is its address in 8 hexadecimal digits, so no two nets share a label but those
    /// that overlap, which are refused otherwise.
    pub(crate) fn of(subnet: Ipv4Net) -> Self {
        let label = match subnet.network().octets() {
            [192, 168, third, 0] if subnet.prefix_len() == 24 => third.to_string(),
            octets => format!("{:08x}", u32::from_be_bytes(octets)),
        };
        Self { label, subnet }
    }

    pub(crate) fn gateway_device(&self) -> String {
        format!("nex{}", self.label)
    }

    pub(crate) fn tap_prefix(&self) -> String {
        format!("nx{}-", self.label)
    }

    pub(crate) fn tap(&self, number: u32) -> String {
        format!("nx{}-{number}", self.label)
    }

    pub(crate) fn queue(&self, number: u32) -> String {
        format!("ni{}-{number}", self.label)
    }

    /// The queue's device that belongs to a tap.
    pub(crate) fn queue_of(tap: &str) -> Option<String> {
        Some(format!("ni{}", tap.strip_prefix("nx")?))
    }

    /// The group of the devices whose names others choose: the net's address, which no other net uses.
    pub(crate) fn group(&self) -> u32 {
        u32::from(self.subnet.network())
    }

    pub(crate) fn address(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet.network()).saturating_add(number))
    }

    /// The highest guest's number: that of the last host address, as far as a name has room for it.
    pub(crate) fn last(&self) -> u32 {
        let hosts = u32::MAX >> self.subnet.prefix_len();
        hosts.saturating_sub(1).min(9_999)
    }

    /// The prefix of a network's taps, from the name of its gateway device.
    pub(crate) fn taps_of(gateway_device: &str) -> Option<String> {
        let label = gateway_device.strip_prefix("nex")?;
        Some(format!("nx{label}-"))
    }
}

/// A MAC address that follows from an IP address: locally administered, the same whenever it is asked for.
pub(crate) fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x6e, a, b, c, d]
}

/// The alias of the gateway device, and the beginning of all others of this owner.
pub(crate) fn alias(owner: &str) -> String {
    format!("nex:{owner}")
}

/// The alias of a guest's device.
pub(crate) fn guest_alias(owner: &str, id: &str) -> String {
    format!("nex:{owner}:{id}")
}

/// The guest's id in an alias of this owner.
pub(crate) fn id_in<'a>(alias: &'a str, owner: &str) -> Option<&'a str> {
    alias.strip_prefix("nex:")?.strip_prefix(owner)?.strip_prefix(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_subnets_apart_and_fit_the_kernel() {
        for (subnet, gateway_device, tap, last) in [
            ("192.168.127.0/24", "nex127", "nx127-254", 254),
            ("192.168.127.0/25", "nexc0a87f00", "nxc0a87f00-126", 126),
            ("10.10.10.0/24", "nex0a0a0a00", "nx0a0a0a00-254", 254),
            ("10.0.0.0/16", "nex0a000000", "nx0a000000-9999", 9_999),
            ("10.0.0.8/29", "nex0a000008", "nx0a000008-6", 6),
        ] {
            let names = Names::of(subnet.parse().unwrap());
            assert_eq!(
                (names.gateway_device(), names.tap(names.last()), names.last()),
                (gateway_device.to_owned(), tap.to_owned(), last)
            );
            assert!(names.tap(names.last()).len() <= 15, "{subnet}");
            assert!(names.tap(1).starts_with(&Names::taps_of(gateway_device).unwrap()));
        }
    }

    #[test]
    fn an_alias_belongs_to_one_owner() {
        assert_eq!(id_in(&guest_alias("n1", "vm-7"), "n1"), Some("vm-7"));
        assert_eq!(id_in(&guest_alias("n12", "vm-7"), "n1"), None);
        assert_eq!(id_in(&alias("n1"), "n1"), None);
        assert_eq!(id_in("uplink", "n1"), None);
    }
}
