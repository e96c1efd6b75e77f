//! Who this node is: a server nkey and a curve key, made once and kept.

use std::fmt;

use nex_protocol::id::NodeId;
use nkeys::{KeyPair, XKey};

use crate::state_dir::{StateDir, StateError};

/// The node's keys.
pub struct Identity {
    /// The public server key, the node's id.
    pub node: NodeId,
    /// The curve key environments are sealed to.
    pub xkey: XKey,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the keys, or makes them on the first start.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load(state: &StateDir) -> Result<Self, StateError> {
        let node = state.key(
            "node.nk",
            || KeyPair::new_server().seed().ok(),
            |seed| KeyPair::from_seed(seed).ok()?.public_key().parse::<NodeId>().ok(),
        )?;
        let xkey = state.key("node.xk", || XKey::new().seed().ok(), |seed| XKey::from_seed(seed).ok())?;
        Ok(Self { node, xkey })
    }
}
