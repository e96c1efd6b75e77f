//! Who this node is: a server nkey and a curve key, made once and kept, and the nexus it belongs to.

use std::fmt;
use std::path::Path;

use nex_protocol::claims::Place;
use nex_protocol::id::NodeId;
use nex_protocol::seal;
use nkeys::{KeyPair, XKey};

use crate::state_dir::{KEYS, StateDir, StateError};

/// File of the server key.
const NODE_KEY: &str = "node.nk";

/// The node's keys and its place among others.
pub struct Identity {
    /// The public server key, the node's id.
    pub node: NodeId,
    /// Name of the group of nodes.
    pub nexus: String,
    /// The curve key environments are sealed to.
    pub xkey: XKey,
    /// The node's signature that this curve key is its own.
    pub xkey_signature: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node", &self.node).field("nexus", &self.nexus).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the keys, or makes them on the first start.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load(state: &StateDir, nexus: String) -> Result<Self, StateError> {
        let (node, key) = state.key(
            NODE_KEY,
            || KeyPair::new_server().seed().ok(),
            |seed| {
                let key = KeyPair::from_seed(seed).ok()?;
                Some((key.public_key().parse::<NodeId>().ok()?, key))
            },
        )?;
        let xkey = state.key("node.xk", || XKey::new().seed().ok(), |seed| XKey::from_seed(seed).ok())?;
        // A key that was made from its seed has one to sign with.
        let xkey_signature = seal::sign_xkey(&key, &xkey.public_key()).unwrap_or_default();
        Ok(Self { node, nexus, xkey, xkey_signature })
    }

    /// Who the node of a state directory is, if one was started there and its key can be read.
    #[must_use]
    pub fn read(state_dir: &Path) -> Option<NodeId> {
        let seed = std::fs::read_to_string(state_dir.join(KEYS).join(NODE_KEY)).ok()?;
        KeyPair::from_seed(seed.trim()).ok()?.public_key().parse().ok()
    }

    /// This node and a namespace on it, to be compared with what claims are bound to.
    #[must_use]
    pub fn place<'a>(&'a self, namespace: &'a str) -> Place<'a> {
        Place { node: &self.node, nexus: &self.nexus, namespace }
    }
}
