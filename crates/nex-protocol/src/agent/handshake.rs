//! Who an agent is, all it is given at birth, and the first words between it and its node.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::deploy::WorkloadType;
use crate::id::AgentId;

/// Longest version, and longest message for people, in a handshake, bytes.
const MAX_VERSION: usize = 64;
const MAX_MESSAGE: usize = 1_024;
/// Length of a public curve key.
const XKEY_LENGTH: usize = 56;

/// Who an agent is and where its node listens. Has no derived `Debug`: it carries a seed.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The agent's id.
    pub agent: AgentId,
    /// `tls://<ip>:<port>` of the internal bus.
    pub bus: String,
    /// The bus's own certificate, PEM: who has not its key is not the bus.
    pub certificate: String,
    /// Its user JWT.
    pub jwt: String,
    /// Its user seed.
    pub seed: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("agent", &self.agent).field("bus", &self.bus).finish_non_exhaustive()
    }
}

/// Agent → node on `hostint.<agent>.handshake`: ready for instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake {
    /// [`super::PROTOCOL`] of the agent.
    pub protocol: u32,
    /// Version of the agent's software.
    pub version: String,
    /// Types its engines run.
    pub engines: Vec<WorkloadType>,
    /// Curve key to seal environments to.
    pub xkey: String,
    /// Most instances it hosts at once.
    pub capacity: u32,
    /// For people: how it is confined.
    #[serde(default)]
    pub message: String,
}

impl Handshake {
    /// Why a node refuses it, if it does.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        if self.version.len() > MAX_VERSION || self.message.len() > MAX_MESSAGE || self.xkey.len() != XKEY_LENGTH {
            return Some("its version, message or key has an impossible length".to_owned());
        }
        let expected = super::PROTOCOL;
        let actual = self.protocol;
        (actual != expected).then(|| {
            format!("the agent speaks protocol {actual}, this node speaks {expected}; install nex and nex-agent of one version")
        })
    }
}

/// Answer to a handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Whether the node takes the agent.
    pub accepted: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
