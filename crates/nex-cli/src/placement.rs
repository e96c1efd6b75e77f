//! Where copies of a workload go: on nodes of their own as far as there are any.

use nex_client::auction::{Auction, Bid};
use nex_client::deploy::Target;
use nex_protocol::id::NodeId;

use crate::check::Usage;
use crate::output::Output;

/// Tag of a node that takes HTTP requests: where it listens.
const LISTENER: &str = "nex.http";

/// What copies may be placed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement<'a> {
    pub(crate) auction: &'a Auction,
    /// The nodes that may be taken; all if none is named.
    pub(crate) allowed: &'a [NodeId],
    /// Whether each copy has to have a node of its own.
    pub(crate) spread: bool,
}

impl Placement<'_> {
    /// A node for each new copy: its `wishes` where that node bids, else one that has none yet, else whichever suits best. `taken` are the
    /// nodes of copies that stay.
    pub(crate) fn place(&self, wishes: &[Option<NodeId>], taken: &[NodeId]) -> anyhow::Result<Vec<Target>> {
        self.auction.check_triggers()?;
        let mut used = taken.to_vec();
        let mut targets = Vec::new();
        for wish in wishes {
            let own = wish.as_ref().filter(|node| self.may_be(node) && !(self.spread && used.contains(node)));
            let own = own.and_then(|node| self.auction.best_of(std::slice::from_ref(node)).ok());
            let bid = match own.or_else(|| self.unused(&used)) {
                Some(bid) => bid,
                None if self.spread && !used.is_empty() => {
                    let why = format!("there is no node left for another copy: {} have one each", used.len());
                    return Err(
                        Usage(format!("{why}; next: start another node, ask for fewer copies, or do without spread")).into()
                    );
                }
                None => self.auction.best_of(self.allowed)?,
            };
            used.push(bid.node);
            targets.push(bid.target);
        }
        Ok(targets)
    }

    fn may_be(&self, node: &NodeId) -> bool {
        self.allowed.is_empty() || self.allowed.contains(node)
    }

    /// The best bid of a node that has no copy yet.
    fn unused(&self, used: &[NodeId]) -> Option<Bid> {
        let bidding = self.auction.bids.iter().filter_map(|bid| bid.node_id.parse::<NodeId>().ok());
        let free: Vec<NodeId> = bidding.filter(|node| !used.contains(node) && self.may_be(node)).collect();
        if free.is_empty() { None } else { self.auction.best_of(&free).ok() }
    }
}

/// Says of a workload with routes of HTTP when no node listens for requests: it would run, and nobody would call it.
pub(crate) fn note_listeners(auction: &Auction, has_routes: bool, output: &Output) {
    let mut nodes = auction.bids.iter().chain(&auction.declined);
    if has_routes && !nodes.any(|node| node.tags.contains_key(LISTENER)) {
        output.note("No node listens for HTTP, so nothing calls it: start one with --http 127.0.0.1:8080");
    }
}

#[cfg(test)]
mod tests {
    use nex_protocol::control::NodeSummary;
    use nkeys::KeyPair;
    use proptest::prelude::*;

    use super::*;

    fn auction(nodes: usize) -> (Auction, Vec<NodeId>) {
        let bids: Vec<NodeSummary> = (0..nodes)
            .map(|running| NodeSummary {
                node_id: KeyPair::new_server().public_key(),
                running_machines: running,
                ..NodeSummary::default()
            })
            .collect();
        let ids = bids.iter().map(|bid| bid.node_id.parse().unwrap()).collect();
        (Auction { bids, declined: vec![] }, ids)
    }

    #[test]
    fn a_copy_stays_where_it_was_and_new_ones_take_the_emptiest_nodes_that_are_free() {
        let (auction, nodes) = auction(3);
        let placement = Placement { auction: &auction, allowed: &[], spread: false };
        let placed = |wishes: &[Option<NodeId>], taken: &[NodeId]| -> Vec<NodeId> {
            placement.place(wishes, taken).unwrap().into_iter().map(|target| target.node).collect()
        };
        assert_eq!(placed(&[None], &[]), [nodes[0].clone()]);
        assert_eq!(placed(&[Some(nodes[2].clone()), None], &[]), [nodes[2].clone(), nodes[0].clone()]);
        assert_eq!(placed(&[None], &[nodes[0].clone(), nodes[1].clone()]), [nodes[2].clone()]);
        assert_eq!(placed(&[None, None, None, None], &[]).len(), 4, "a node takes a second one when there is no other");
        let gone: NodeId = KeyPair::new_server().public_key().parse().unwrap();
        assert_eq!(placed(&[Some(gone)], &[]), [nodes[0].clone()]);
    }

    proptest! {
        #[test]
        fn spread_copies_never_share_a_node_and_only_named_nodes_are_taken(
            nodes in 1..6_usize, allowed in 0..6_usize, copies in 1..8_usize, taken in 0..3_usize,
        ) {
            let (auction, ids) = auction(nodes);
            let (allowed, taken) = (&ids[..allowed.min(nodes)], &ids[..taken.min(nodes)]);
            let may = |node: &NodeId| allowed.is_empty() || allowed.contains(node);
            let free = ids.iter().filter(|node| may(node) && !taken.contains(node)).count();
            let placed = Placement { auction: &auction, allowed, spread: true }.place(&vec![None; copies], taken);
            match placed {
                Ok(targets) => {
                    let mut all: Vec<&NodeId> = targets.iter().map(|target| &target.node).chain(taken).collect();
                    prop_assert!(targets.iter().all(|target| may(&target.node)));
                    all.sort();
                    all.dedup();
                    prop_assert_eq!(all.len(), copies + taken.len());
                }
                Err(_) => prop_assert!(free < copies),
            }
            prop_assert_eq!(Placement { auction: &auction, allowed, spread: false }.place(&vec![None; copies], taken).unwrap().len(), copies);
        }
    }
}
