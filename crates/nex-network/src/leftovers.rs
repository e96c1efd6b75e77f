//! Finds and removes what earlier processes of an owner made, by names and aliases.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;

use nex_netlink::{Link, Netlink};
use nex_process::Deadline;
use tokio::task::JoinSet;

use crate::blocking::blocking;
use crate::error::NetworkError;
use crate::names::{Names, alias, id_in};
use crate::{cni, config, nft, rules};

/// Chains of plug-ins that are undone at once.
const MAX_CONCURRENT: usize = 8;

/// Removes everything that processes of this owner left, for a node that opens no network now. Returns how many guests'
/// connections, networks and tables were removed.
pub async fn remove_leftovers(owner: &str, state_dir: &Path, by: Deadline) -> usize {
    if config::check_owner(owner).is_err() {
        return 0;
    }
    let mut removed = guests(owner, state_dir, &BTreeSet::new(), by).await;
    let owned = owner.to_owned();
    removed += count(
        blocking(move || Ok(delete(&owned, &Stale { keep: &BTreeSet::new(), pending: &Mutex::default(), gateway_device: None })))
            .await,
    );
    if nft::exists(&rules::table(owner), by).await {
        match nft::delete(&rules::table(owner), by).await {
            Ok(()) => removed += 1,
            Err(error) => tracing::warn!(owner, %error, "the packet filter's table was not removed"),
        }
    }
    removed
}

/// Undoes the chains of all guests except those to keep; returns how many.
pub(crate) async fn guests(owner: &str, state_dir: &Path, keep: &BTreeSet<String>, by: Deadline) -> usize {
    let mut ids = cni::ids(owner, state_dir).into_iter().filter(|id| !keep.contains(id));
    let mut running = JoinSet::new();
    let mut removed = 0;
    loop {
        while running.len() < MAX_CONCURRENT
            && let Some(id) = ids.next()
        {
            let (owner, state_dir) = (owner.to_owned(), state_dir.to_owned());
            running.spawn(async move { cni::detach(&owner, &state_dir, &id, by).await });
        }
        match running.join_next().await {
            Some(done) => removed += usize::from(done.unwrap_or(false)),
            None => return removed,
        }
    }
}

/// Which devices a removal keeps.
pub(crate) struct Stale<'a> {
    /// Guests to keep.
    pub(crate) keep: &'a BTreeSet<String>,
    /// Devices that are being made.
    pub(crate) pending: &'a Mutex<BTreeSet<String>>,
    /// The anchor that stays; absent means none.
    pub(crate) gateway_device: Option<i32>,
}

/// Removes the owner's devices, queues and gateway devices; returns how many guests and networks those were. Blocks.
pub(crate) fn delete(owner: &str, stale: &Stale<'_>) -> usize {
    let deleted = Netlink::open().and_then(|mut netlink| {
        let links = netlink.links()?;
        let (guests, stay): (Vec<_>, Vec<_>) =
            of_guests(owner, &links).into_iter().partition(|(id, _)| !stale.keep.contains(*id));
        let mut removed = 0;
        for (_, link) in guests {
            removed += usize::from(remove(&mut netlink, link) && link.kind != "ifb");
        }
        for link in unaliased(owner, &links) {
            if is_still_unaliased(&mut netlink, link, stale.pending) {
                removed += usize::from(remove(&mut netlink, link) && link.kind != "ifb");
            }
        }
        for link in links.iter().filter(|link| is_gateway_device(link, owner) && Some(link.index) != stale.gateway_device) {
            let prefix = Names::taps_of(&link.name).unwrap_or_default();
            // Guests that stay need their gateway.
            if !stay.iter().any(|(_, guest)| guest.name.starts_with(&prefix)) {
                removed += usize::from(remove(&mut netlink, link));
            }
        }
        Ok(removed)
    });
    deleted.unwrap_or_else(|error| {
        tracing::warn!(owner, %error, "the devices of guests could not be listed; a later sweep tries again");
        0
    })
}

fn is_gateway_device(link: &Link, owner: &str) -> bool {
    link.alias == alias(owner) && link.name.starts_with("nex")
}

/// The devices whose alias names one of the owner's guests.
fn of_guests<'a>(owner: &str, links: &'a [Link]) -> Vec<(&'a str, &'a Link)> {
    links.iter().filter_map(|link| Some((id_in(&link.alias, owner)?, link))).collect()
}

/// Taps and queues of the owner's networks without an alias: a process died, or is at work, between two system calls.
fn unaliased<'a>(owner: &str, links: &'a [Link]) -> Vec<&'a Link> {
    let prefixes: Vec<_> =
        links.iter().filter(|link| is_gateway_device(link, owner)).filter_map(|link| Names::taps_of(&link.name)).collect();
    let is_ours = |link: &&Link| tap_of(link).is_some_and(|tap| prefixes.iter().any(|prefix| tap.starts_with(prefix)));
    links.iter().filter(|link| link.alias.is_empty()).filter(is_ours).collect()
}

/// The name of the tap that a device is, or is the queue of.
fn tap_of(link: &Link) -> Option<String> {
    match link.kind.as_str() {
        "tun" | "veth" => Some(link.name.clone()),
        "ifb" => Some(format!("nx{}", link.name.strip_prefix("ni")?)),
        _ => None,
    }
}

/// Checks again right before the deletion: a finished device has an alias by now, an unfinished one is registered as pending.
fn is_still_unaliased(netlink: &mut Netlink, link: &Link, pending: &Mutex<BTreeSet<String>>) -> bool {
    let pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
    if tap_of(link).is_some_and(|tap| pending.contains(&tap)) {
        return false;
    }
    let now = netlink.link(&link.name).ok().flatten();
    now.is_some_and(|now| now.index == link.index && now.alias.is_empty())
}

fn remove(netlink: &mut Netlink, link: &Link) -> bool {
    let deleted = netlink.delete_link(link.index);
    if let Err(error) = &deleted {
        tracing::warn!(device = link.name, %error, "a device was not removed; a later sweep tries again");
    }
    deleted.is_ok()
}

fn count(result: Result<usize, NetworkError>) -> usize {
    result.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: i32, name: &str, kind: &str, alias: &str) -> Link {
        Link { index, name: name.to_owned(), alias: alias.to_owned(), kind: kind.to_owned(), mac: None, mtu: 1500 }
    }

    #[test]
    fn only_devices_with_the_owners_alias_are_his() {
        let links = [
            link(1, "eth0", "", ""),
            link(2, "nex127", "tun", "nex:n1"),
            link(3, "nx127-1", "tun", "nex:n1:a"),
            link(4, "nx127-2", "tun", ""),
            link(5, "ni127-2", "ifb", ""),
            link(6, "nx128-1", "tun", ""),
            link(7, "nex128", "tun", "nex:n12"),
            link(8, "nx128-2", "tun", "nex:n12:a"),
            link(9, "nx127-3", "veth", ""),
            link(10, "veth12", "veth", "nex:n1:b"),
            link(11, "nx127-9", "tun", "somebody's"),
        ];
        let guests: Vec<_> = of_guests("n1", &links).iter().map(|(id, link)| (*id, link.index)).collect();
        assert_eq!(guests, [("a", 3), ("b", 10)]);
        let unaliased: Vec<_> = unaliased("n1", &links).iter().map(|link| link.index).collect();
        assert_eq!(unaliased, [4, 5, 9]);
    }
}
