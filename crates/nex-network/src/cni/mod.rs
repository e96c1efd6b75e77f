//! The network of CNI plug-ins: a namespace per guest, the chain through real plug-ins, and in the namespace a tap whose packets
//! are redirected to the plug-ins' veth and back.

pub(crate) mod answer;
mod chain;
pub(crate) mod list;
mod record;

use std::path::PathBuf;

use nex_netlink::{Link, LinkChange, Netlink};
use nex_process::Deadline;
use nex_process::tap::create_tap;

use crate::attachment::Attachment;
use crate::blocking::blocking;
use crate::config::{CniConfig, Limits, TAP_IN_NAMESPACE};
use crate::error::{NetworkError, device};
use crate::gateway::GatewayDevice;
use crate::names::{guest_alias, mac};
use crate::{netns, sysctl};

use answer::Answer;
use chain::Container;
use list::List;
use record::Record;

/// Runs the chain for guests.
#[derive(Debug)]
pub(crate) struct Cni {
    pub(crate) owner: String,
    pub(crate) gateway_device: GatewayDevice,
    pub(crate) config: CniConfig,
    pub(crate) list: List,
    pub(crate) state_dir: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) to_loopback: bool,
}

/// The device inside a guest's namespace.
struct NamespaceSetup {
    tap: String,
    mac: [u8; 6],
    mtu: u16,
}

impl Cni {
    /// Connects a guest; the caller removes it if this fails.
    pub(crate) async fn attach(&self, id: &str, by: Deadline) -> Result<Attachment, NetworkError> {
        let mut record = Record {
            id: id.to_owned(),
            netns: netns::path(&self.owner, id),
            interface: self.config.interface_name.clone(),
            bin_path: self.config.bin_path.clone(),
            list: self.list.clone(),
            result: serde_json::Value::Null,
        };
        record.write(&self.state_dir)?;
        netns::create(&record.netns).await?;
        let container = container_id(&self.owner, id);
        record.result = chain::add(&record.list, run_for(&record, &container), by).await?;
        record.write(&self.state_dir)?;
        let answer = self.read(&record, &container)?;
        self.mark(id, answer.host.clone()).await?;
        let setup = self.set_up_namespace(&record, &answer).await?;
        Ok(Attachment {
            id: id.to_owned(),
            tap: setup.tap,
            netns: Some(record.netns),
            mac: setup.mac,
            address: answer.address.addr(),
            prefix: answer.address.prefix_len(),
            gateway: self.gateway_device.gateway,
            gateway_mac: mac(self.gateway_device.gateway),
            mtu: setup.mtu,
            nameservers: answer.nameservers,
            loopback_ports: std::collections::BTreeSet::new(),
        })
    }

    fn read(&self, record: &Record, container: &str) -> Result<Answer, NetworkError> {
        let last = record.list.plugins.last().map(|plugin| plugin.kind.clone()).unwrap_or_default();
        let failed = |said| NetworkError::Plugin { plugin: last.clone(), command: "ADD", said };
        let answer = answer::read(&record.result, container).map_err(failed)?;
        let GatewayDevice { subnet, gateway, .. } = &self.gateway_device;
        if !subnet.contains(&answer.address.addr()) {
            return Err(failed(format!("its address {} is not in the subnet {subnet}", answer.address)));
        }
        if answer.gateway.is_some_and(|given| given != *gateway) {
            return Err(failed(format!("its gateway {:?} is not the network's, {gateway}", answer.gateway)));
        }
        Ok(answer)
    }

    /// Marks the host's ends: their group is for the packet filter, their alias for a sweep.
    async fn mark(&self, id: &str, host: Vec<String>) -> Result<(), NetworkError> {
        let (alias, group, to_loopback) = (guest_alias(&self.owner, id), self.gateway_device.names.group(), self.to_loopback);
        let gateway_mac = mac(self.gateway_device.gateway);
        blocking(move || {
            let mut netlink = Netlink::open().map_err(device("open netlink for", &alias))?;
            for name in host {
                // A bridge of the operator's list is shared; leave it alone.
                let link = netlink.link(&name).map_err(device("find", &name))?;
                let Some(link) = link.filter(|link| link.kind == "veth") else { continue };
                sysctl::guest(&name, to_loopback)?;
                let change =
                    LinkChange { alias: Some(&alias), group: Some(group), mac: Some(gateway_mac), ..LinkChange::default() };
                netlink.change_link(link.index, change).map_err(device("configure", &name))?;
            }
            Ok(())
        })
        .await
    }

    /// Finishes the namespace: makes the tap, unless a plug-in did, and sets the limits.
    async fn set_up_namespace(&self, record: &Record, answer: &Answer) -> Result<NamespaceSetup, NetworkError> {
        let (interface, made, limits) = (record.interface.clone(), answer.tap.clone(), self.limits);
        netns::run_in(&record.netns, move || {
            let mut netlink = Netlink::open().map_err(device("open netlink for", &interface))?;
            let veth = find(&mut netlink, &interface)?;
            let (tap, mac) = match made {
                Some((name, mac)) => (find(&mut netlink, &name)?, Some(mac)),
                None => (redirected_tap(&mut netlink, &veth)?, veth.mac),
            };
            if let Some(rate) = limits.to_guest {
                netlink.limit(tap.index, rate).map_err(device("limit", &tap.name))?;
            }
            if let Some(rate) = limits.from_guest {
                netlink.limit(veth.index, rate).map_err(device("limit", &interface))?;
            }
            let no_mac = || device("read the MAC address of", &interface)(std::io::ErrorKind::InvalidData.into());
            Ok(NamespaceSetup { tap: tap.name, mac: mac.ok_or_else(no_mac)?, mtu: veth.mtu })
        })
        .await
    }
}

/// Makes the tap and redirects packets between it and the veth in both directions, so the guest takes the veth's place.
fn redirected_tap(netlink: &mut Netlink, veth: &Link) -> Result<Link, NetworkError> {
    drop(create_tap(TAP_IN_NAMESPACE).map_err(device("make", TAP_IN_NAMESPACE))?);
    let tap = find(netlink, TAP_IN_NAMESPACE)?;
    let change = LinkChange { mtu: Some(veth.mtu), up: true, ..LinkChange::default() };
    netlink.change_link(tap.index, change).map_err(device("configure", TAP_IN_NAMESPACE))?;
    netlink.redirect(veth.index, tap.index).map_err(device("redirect", &veth.name))?;
    netlink.redirect(tap.index, veth.index).map_err(device("redirect", TAP_IN_NAMESPACE))?;
    Ok(tap)
}

fn find(netlink: &mut Netlink, name: &str) -> Result<Link, NetworkError> {
    let found = netlink.link(name).and_then(|link| link.ok_or_else(|| std::io::ErrorKind::NotFound.into()));
    found.map_err(device("find", name))
}

/// Plug-ins' names for a guest are unique on the host.
fn container_id(owner: &str, id: &str) -> String {
    format!("{owner}-{id}")
}

fn run_for<'a>(record: &'a Record, container: &'a str) -> Container<'a> {
    Container { id: container, netns: &record.netns, interface: &record.interface, bin_path: &record.bin_path }
}

/// Removes a guest's connection in any state. Returns whether nothing is left.
pub(crate) async fn detach(owner: &str, state_dir: &std::path::Path, id: &str, by: Deadline) -> bool {
    let note = |result: Result<(), NetworkError>| {
        if let Err(error) = &result {
            tracing::warn!(guest = id, %error, "a guest's network was not wholly removed; a later sweep tries again");
        }
        result.is_ok()
    };
    let mut clean = true;
    let record = Record::read(state_dir, id);
    if let Some(record) = &record {
        let container = container_id(owner, id);
        clean &= note(chain::delete(&record.list, run_for(record, &container), &record.result, by).await);
    }
    let (netns, alias) = (netns::path(owner, id), guest_alias(owner, id));
    clean &= note(
        blocking(move || {
            // Removing the namespace removes its tap; the host's end of a veth that a failed DEL left is deleted below.
            netns::remove(&netns)?;
            let mut netlink = Netlink::open().map_err(device("open netlink for", &alias))?;
            for link in netlink.links().map_err(device("list", "devices"))? {
                if link.kind == "veth" && link.alias == alias {
                    netlink.delete_link(link.index).map_err(device("delete", &link.name))?;
                }
            }
            Ok(())
        })
        .await,
    );
    clean && note(Record::remove(state_dir, id))
}

/// The ids of all guests of this owner that have anything.
pub(crate) fn ids(owner: &str, state_dir: &std::path::Path) -> std::collections::BTreeSet<String> {
    record::ids(state_dir).into_iter().chain(netns::ids(owner)).collect()
}
