//! A node as people say which: by its id, or by the name that `nex ps` and `nex node ls` show.

use std::convert::Infallible;
use std::str::FromStr;

use nex_protocol::id::NodeId;

use crate::check::Usage;
use crate::session::Session;

/// An id, or what may be a name. A name is only what a node says of itself: where it matters who the node is, take ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeRef {
    Id(NodeId),
    Name(String),
}

impl FromStr for NodeRef {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_no_id| Self::Name(text.to_owned()), Self::Id))
    }
}

impl NodeRef {
    /// The id, or that of the only node of this name.
    pub(crate) async fn resolve(&self, session: &Session) -> anyhow::Result<NodeId> {
        let name = match self {
            Self::Id(node) => return Ok(node.clone()),
            Self::Name(name) => name,
        };
        let nodes = session.client.nodes(session.discovery_timeout).await?;
        let mut named = nodes.iter().filter(|node| node.tags.get("node_name").is_some_and(|own| own == name));
        match (named.next(), named.next()) {
            (Some(node), None) => Ok(node.node_id.parse()?),
            (Some(_), Some(_)) => {
                Err(Usage(format!("several nodes are called '{name}'; next: give the id of one, see `nex node ls`")).into())
            }
            (None, _) => {
                Err(Usage(format!("'{name}' is neither the id nor the name of a node; next: see them with `nex node ls`")).into())
            }
        }
    }
}
