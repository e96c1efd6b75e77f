//! Where a deployer lets a workload run. It chooses the node itself; what it went by is kept with the request, for whoever deploys it again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most nodes, and most tags.
pub const MAX_PLACES: usize = 64;

/// What the node was chosen by (new); a node only repeats it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestedPlacement {
    /// Ids of the nodes that it may run on; any if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Tags that its node has to have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Whether each copy has to have a node of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub spread: bool,
}

impl RequestedPlacement {
    /// Whether it is within its bounds.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.nodes.len() <= MAX_PLACES && self.tags.len() <= MAX_PLACES
    }
}
