//! Entry points for `fuzz/` to the parsers of plug-ins' and the kernel's answers, and of operators' files.

use std::path::Path;

use serde_json::Value;

use crate::cni;
use crate::config::CniConfig;
use crate::names::{Names, id_in};

/// A list of plug-ins, and a plug-in's result.
pub fn cni(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let config = CniConfig {
        network_name: "fcnet".to_owned(),
        interface_name: "veth0".to_owned(),
        bin_path: vec!["/bin".into()],
        conf_dir: "/etc/cni".into(),
        nameservers: Vec::new(),
    };
    drop((cni::list::subnet(&value), cni::list::missing(&config, &value)));
    drop(cni::list::resolve(&config, &value, Path::new("/leases")));
    drop(cni::answer::read(&value, "n1-vm"));
}

/// A datagram of netlink about devices, addresses and routes.
pub fn netlink(bytes: &[u8]) {
    nex_netlink::parse_all(bytes);
}

/// Aliases and names of devices: whose is what.
pub fn alias(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(id) = id_in(&text, "n1") {
        assert_eq!(text, crate::names::guest_alias("n1", id), "an alias of another was taken for ours");
    }
    drop((Names::taps_of(&text), Names::queue_of(&text)));
}
