//! The result of the last plug-in: address, gateway, devices, name servers. Results of 0.3.0 to 1.1.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
struct Raw {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
    #[serde(default)]
    dns: Dns,
}

#[derive(Debug, Deserialize)]
struct Interface {
    name: String,
    #[serde(default)]
    mac: String,
    #[serde(default)]
    sandbox: String,
}

#[derive(Debug, Deserialize)]
struct Ip {
    address: String,
    #[serde(default)]
    gateway: Option<Ipv4Addr>,
}

#[derive(Debug, Default, Deserialize)]
struct Dns {
    #[serde(default)]
    nameservers: Vec<String>,
}

/// The used fields of a result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) address: Ipv4Net,
    pub(crate) gateway: Option<Ipv4Addr>,
    /// The devices at the host's end.
    pub(crate) host: Vec<String>,
    /// The tap and the guest's MAC address, where a plug-in made the tap: it names the guest itself as their sandbox.
    pub(crate) tap: Option<(String, [u8; 6])>,
    pub(crate) nameservers: Vec<IpAddr>,
}

/// Reads an answer; the container's id is what a tap's plug-in calls the inside of the VM.
pub(crate) fn read(result: &Value, container: &str) -> Result<Answer, String> {
    let raw = Raw::deserialize(result).map_err(|error| format!("its result is unusable: {error}"))?;
    let ip = raw.ips.iter().find_map(|ip| Some((ip.address.parse::<Ipv4Net>().ok()?, ip.gateway)));
    let (address, gateway) = ip.ok_or("its result has no IPv4 address")?;
    let host = raw.interfaces.iter().filter(|interface| interface.sandbox.is_empty()).map(|interface| interface.name.clone());
    let tap = raw.interfaces.iter().find(|interface| interface.sandbox == container);
    let tap = tap.and_then(|interface| Some((interface.name.clone(), mac(&interface.mac)?)));
    let nameservers = raw.dns.nameservers.iter().filter_map(|server| server.parse().ok()).collect();
    Ok(Answer { address, gateway, host: host.collect(), tap, nameservers })
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_of_both_ages_are_read() {
        let old = json!({"cniVersion": "0.4.0", "interfaces": [
            {"name": "veth1a", "mac": "d2:b8:43:73:f9:41"}, {"name": "veth0", "mac": "2a:f3:fb:56:8e:90", "sandbox": "/run/netns/x"}],
            "ips": [{"version": "4", "interface": 1, "address": "192.168.127.2/24", "gateway": "192.168.127.1"}], "dns": {}});
        let answer = read(&old, "n1-vm").unwrap();
        assert_eq!((answer.address.addr().octets(), answer.address.prefix_len()), ([192, 168, 127, 2], 24));
        assert_eq!((answer.host, answer.tap), (vec!["veth1a".to_owned()], None));

        let new = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "tap0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x"},
            {"name": "tap0", "mac": "02:00:00:00:00:07", "sandbox": "n1-vm"}],
            "ips": [{"address": "fd00::2/64"}, {"address": "10.0.0.2/16"}], "dns": {"nameservers": ["10.0.0.53", "no"]}});
        let answer = read(&new, "n1-vm").unwrap();
        assert_eq!(answer.tap, Some(("tap0".to_owned(), [2, 0, 0, 0, 0, 7])));
        assert_eq!((answer.gateway, answer.nameservers.len()), (None, 1));
    }

    #[test]
    fn an_answer_without_an_address_is_refused() {
        for answer in [json!(null), json!({}), json!({"ips": [{"address": "x"}]}), json!({"ips": 3})] {
            assert!(read(&answer, "c").is_err(), "{answer}");
        }
    }
}
