//! Who would take a workload, and why others would not.

use std::fmt;
use std::time::Duration;

use nex_protocol::control::{AuctionRequest, NodeSummary};
use nex_protocol::envelope::{self, kind};
use nex_protocol::id::NodeId;
use nex_protocol::subject;

use crate::Client;
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

impl Auction {
    /// The best bid: the fewest running workloads, then the most agents in waiting, then by lot.
    ///
    /// # Errors
    /// [`NobodyBids`], with the reasons.
    pub fn best(&self) -> Result<Bid, NobodyBids> {
        let rank = |node: &NodeSummary| (node.running_machines, std::cmp::Reverse(node.warm_agents.unwrap_or(0)));
        let drains = |node: &NodeSummary| node.tags.get("nex.lameduck").is_some_and(|value| value == "true");
        self.bids
            .iter()
            .filter(|node| !drains(node))
            .filter_map(|summary| Some((summary, summary.node_id.parse::<NodeId>().ok()?)))
            .min_by_key(|(summary, _)| (rank(summary), rand::random::<u32>()))
            .map(|(summary, node)| Bid { node, summary: summary.clone() })
            .ok_or_else(|| NobodyBids { declined: self.all_reasons() })
    }

    fn all_reasons(&self) -> Vec<NodeSummary> {
        let draining =
            self.bids.iter().map(|node| NodeSummary { declined: vec!["it is in lame duck mode".into()], ..node.clone() });
        let mut all: Vec<NodeSummary> = self.declined.iter().cloned().chain(draining).collect();
        all.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        all
    }
}

impl Client {
    /// Asks every node whether it would take a workload and collects bids and reasons, at most `wait`.
    ///
    /// When nobody bids, nodes that only answer PING (those of 0.2.7 decline in silence) are among the declined.
    ///
    /// # Errors
    /// [`GatherError`] when the question could not be sent; no bids is no error.
    pub async fn auction(&self, request: &AuctionRequest, wait: Duration) -> Result<Auction, GatherError> {
        let body = serde_json::to_vec(&AuctionRequest { explain: true, ..request.clone() }).unwrap_or_default();
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
