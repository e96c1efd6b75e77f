//! Who would take a workload, and why others would not.

use std::fmt;
use std::time::Duration;

use nex_protocol::control::{AuctionRequest, NodeSummary};
use nex_protocol::envelope::{self, kind};
use nex_protocol::id::NodeId;
use nex_protocol::subject;

use crate::Client;
use crate::deploy::Target;
use crate::gather::{Gather, GatherError};

/// The outcome of an auction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Auction {
    /// Nodes that would take the workload.
    pub bids: Vec<NodeSummary>,
    /// Nodes that would not, with their reasons.
    pub declined: Vec<NodeSummary>,
}

/// The bid that won.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bid {
    /// The node.
    pub node: NodeId,
    /// All it says of itself.
    pub summary: NodeSummary,
    /// Where to deploy to.
    pub target: Target,
}

/// No node would take the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NobodyBids {
    /// The nodes there are, each with its reasons (none given by nodes of 0.2.7).
    pub declined: Vec<NodeSummary>,
}

impl fmt::Display for NobodyBids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.declined.is_empty() {
            return f.write_str(
                "unable to locate candidate node - no nodes discovered; next: start one with `nex up` or `nex node up`, \
                 or check that you are connected to the NATS they use",
            );
        }
        f.write_str("no node takes this workload:")?;
        for node in &self.declined {
            let name = node.tags.get("node_name").map_or("no-name", String::as_str);
            let reasons = if node.declined.is_empty() { "it gives no reason".to_owned() } else { node.declined.join("; ") };
            write!(f, "\n  {name} ({}): {reasons}", node.node_id)?;
        }
        f.write_str("; next: change what the workload asks for, or start a node that offers it")
    }
}

impl std::error::Error for NobodyBids {}

/// A node runs a workload of another namespace that is called on one of the subjects: both would answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "The trigger subject {subject} overlaps with one of another namespace on node {node}, so that both would be called; next: choose \
     another subject"
)]
pub struct TriggerTaken {
    /// The subject.
    pub subject: String,
    /// The node.
    pub node: String,
}

impl Auction {
    /// Whether another namespace has one of the triggers on any node: those who call would reach either.
    ///
    /// # Errors
    /// [`TriggerTaken`], with the first one.
    pub fn check_triggers(&self) -> Result<(), TriggerTaken> {
        let mut taken =
            self.bids.iter().chain(&self.declined).filter_map(|node| Some((node.taken_trigger.clone()?, &node.node_id)));
        taken.next().map_or(Ok(()), |(subject, node)| Err(TriggerTaken { subject, node: node.clone() }))
    }

    /// The best bid: the fewest running workloads, then the most agents in waiting, then by lot.
    ///
    /// A bid in the name of a node with a key that is not that node's is none; one without a signature counts only where its node did
    /// not answer with one.
    ///
    /// # Errors
    /// [`NobodyBids`], with the reasons.
    pub fn best(&self) -> Result<Bid, NobodyBids> {
        self.best_of(&[])
    }

    /// The best bid of these nodes only; of all if none is named.
    ///
    /// # Errors
    /// [`NobodyBids`], with the reasons.
    pub fn best_of(&self, trusted: &[NodeId]) -> Result<Bid, NobodyBids> {
        let rank = |node: &NodeSummary| (node.running_machines, std::cmp::Reverse(node.warm_agents.unwrap_or(0)));
        let drains = |node: &NodeSummary| node.tags.get("nex.lameduck").is_some_and(|value| value == "true");
        self.bids
            .iter()
            .filter(|node| !drains(node))
            .filter_map(|summary| Some((summary, target(summary)?)))
            .filter(|(_, target)| trusted.is_empty() || trusted.contains(&target.node))
            .filter(|(_, target)| target.is_signed || !self.has_signed_bid_of(&target.node))
            .min_by_key(|(summary, _)| (rank(summary), rand::random::<u32>()))
            .map(|(summary, target)| Bid { node: target.node.clone(), summary: summary.clone(), target })
            .ok_or_else(|| NobodyBids { declined: self.all_reasons(trusted) })
    }

    fn has_signed_bid_of(&self, node: &NodeId) -> bool {
        self.bids.iter().filter_map(target).any(|target| target.is_signed && target.node == *node)
    }

    fn all_reasons(&self, trusted: &[NodeId]) -> Vec<NodeSummary> {
        let reason = |node: &NodeSummary| match target(node) {
            None => "the key in its answer is not its own".to_owned(),
            Some(target) if !trusted.is_empty() && !trusted.contains(&target.node) => {
                "it is not among the nodes asked for".to_owned()
            }
            Some(_) => "it is in lame duck mode".to_owned(),
        };
        let draining = self.bids.iter().map(|node| NodeSummary { declined: vec![reason(node)], ..node.clone() });
        let mut all: Vec<NodeSummary> = self.declined.iter().cloned().chain(draining).collect();
        all.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        all
    }
}

/// Where a bid says to deploy to, if it is that node that says so.
fn target(bid: &NodeSummary) -> Option<Target> {
    Target::new(bid.node_id.parse().ok()?, bid.target_xkey.clone(), &bid.xkey_signature)
        .inspect_err(|foreign| tracing::warn!("{foreign}"))
        .ok()
}

impl Client {
    /// Asks every node whether it would take a workload and collects bids and reasons, at most `wait`.
    ///
    /// When nobody bids, nodes that only answer PING (those of 0.2.7 decline in silence) are among the declined.
    ///
    /// # Errors
    /// [`GatherError`] when the question could not be sent; no bids is no error.
    pub async fn auction(&self, request: &AuctionRequest, wait: Duration) -> Result<Auction, GatherError> {
        let namespace = Some(request.namespace.clone().unwrap_or_else(|| self.namespace.to_string()));
        let asked = AuctionRequest { explain: true, namespace, ..request.clone() };
        let body = serde_json::to_vec(&asked).unwrap_or_default();
        let mut answers = Gather::ask(&self.nats, subject::AUCTION.to_owned(), body.into(), wait).await?;
        let mut auction = Auction::default();
        while let Some(message) = answers.next().await {
            match envelope::open::<NodeSummary>(kind::AUCTION, &message.payload) {
                Ok(node) if node.declined.is_empty() => auction.bids.push(node),
                Ok(node) => auction.declined.push(node),
                Err(error) => tracing::debug!(%error, "skipped an answer to AUCTION"),
            }
        }
        if auction.bids.is_empty() && auction.declined.is_empty() {
            auction.declined = self.nodes(wait).await?;
        }
        Ok(auction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nkeys::KeyPair;

    fn node(running_machines: usize, warm_agents: usize) -> NodeSummary {
        let node_id = KeyPair::new_server().public_key();
        NodeSummary { node_id, running_machines, warm_agents: Some(warm_agents), ..NodeSummary::default() }
    }

    #[test]
    fn the_emptiest_node_wins_and_then_the_warmest() {
        let (busy, cold, warm) = (node(3, 9), node(1, 0), node(1, 2));
        let auction = Auction { bids: vec![busy, cold, warm.clone()], declined: vec![] };
        assert_eq!(auction.best().unwrap().summary, warm);
    }

    #[test]
    fn equal_bids_are_drawn_by_lot() {
        let auction = Auction { bids: vec![node(0, 1), node(0, 1)], declined: vec![] };
        let mut winners: Vec<NodeId> = (0..64).map(|_| auction.best().unwrap().node).collect();
        winners.sort();
        winners.dedup();
        assert_eq!(winners.len(), 2);
    }

    fn signed(key: &KeyPair, xkey: &str) -> NodeSummary {
        let xkey_signature = nex_protocol::seal::sign_xkey(key, xkey).unwrap();
        NodeSummary { node_id: key.public_key(), target_xkey: xkey.into(), xkey_signature, ..node(0, 1) }
    }

    #[test]
    fn a_bid_with_a_key_that_its_node_has_not_signed_never_wins() {
        let (key, xkey) = (KeyPair::new_server(), nkeys::XKey::new().public_key());
        let honest = NodeSummary { running_machines: 9, ..signed(&key, &xkey) };
        let rogue = nkeys::XKey::new().public_key();
        let foreign = NodeSummary { target_xkey: rogue.clone(), ..honest.clone() };
        let unsigned = NodeSummary { target_xkey: rogue, xkey_signature: String::new(), running_machines: 0, ..honest.clone() };
        let auction = Auction { bids: vec![foreign.clone(), unsigned, honest.clone()], declined: vec![] };
        assert_eq!(auction.best().unwrap().target, Target { node: key.public_key().parse().unwrap(), xkey, is_signed: true });
        let text = Auction { bids: vec![foreign], declined: vec![] }.best().unwrap_err().to_string();
        assert!(text.contains("is not its own"), "{text}");
    }

    #[test]
    fn only_nodes_that_are_named_win_where_some_are() {
        let (one, two) = (KeyPair::new_server(), KeyPair::new_server());
        let xkey = nkeys::XKey::new().public_key();
        let auction = Auction { bids: vec![signed(&one, &xkey), signed(&two, &xkey)], declined: vec![] };
        let named: NodeId = two.public_key().parse().unwrap();
        for _ in 0..16 {
            assert_eq!(auction.best_of(std::slice::from_ref(&named)).unwrap().node, named);
        }
        let third: NodeId = KeyPair::new_server().public_key().parse().unwrap();
        assert!(auction.best_of(&[third]).unwrap_err().to_string().contains("not among the nodes asked for"));
    }

    #[test]
    fn a_trigger_that_another_namespace_has_is_taken_whoever_bids() {
        let other = NodeSummary { taken_trigger: Some("fn.greet".into()), declined: vec!["it has it".into()], ..node(0, 1) };
        let auction = Auction { bids: vec![node(0, 1)], declined: vec![other.clone()] };
        let text = auction.check_triggers().unwrap_err().to_string();
        assert!(text.contains("fn.greet") && text.contains(&other.node_id) && text.contains("; next: "), "{text}");
        assert_eq!(Auction { bids: vec![node(0, 1)], declined: vec![] }.check_triggers(), Ok(()));
    }

    #[test]
    fn nobody_bids_names_every_node_and_its_reasons() {
        let mut duck = node(0, 0);
        duck.tags.insert("nex.lameduck".into(), "true".into());
        let mut full = node(9, 0);
        full.declined = vec!["it is full".into(), "it has no tag gpu".into()];
        let text = Auction { bids: vec![duck.clone()], declined: vec![full.clone()] }.best().unwrap_err().to_string();
        for part in ["no node takes", &duck.node_id, "lame duck", &full.node_id, "it is full; it has no tag gpu", "; next: "] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let nobody = Auction::default().best().unwrap_err().to_string();
        assert!(nobody.starts_with("unable to locate candidate node - no nodes discovered"), "{nobody}");
    }
}
