//! Who may say what on the internal bus: decentralised JWT auth, every agent its own user.
//!
//! The node holds the operator and account keys and mints users; the server's configuration never changes, so an agent joins
//! without a reload and a later node process can go on with the same server.

use std::net::IpAddr;

use nex_protocol::agent::subject;
use nex_protocol::id::AgentId;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::nats_user::{NatsUser, Signer, token};
use crate::state_dir::{StateDir, StateError};

/// The operator and account keys of the bus.
pub struct BusKeys {
    operator: KeyPair,
    account: KeyPair,
}

impl std::fmt::Debug for BusKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BusKeys").field("account", &self.account.public_key()).finish_non_exhaustive()
    }
}

impl BusKeys {
    /// Reads the keys, or makes them on the first start.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load(state: &StateDir) -> Result<Self, StateError> {
        let accept = |seed: &str| KeyPair::from_seed(seed).ok();
        Ok(Self {
            operator: state.key("bus-operator.nk", || KeyPair::new_operator().seed().ok(), accept)?,
            account: state.key("bus-account.nk", || KeyPair::new_account().seed().ok(), accept)?,
        })
    }

    /// The server's whole configuration, listening on a port of one of the host's own addresses (-1: any free one).
    #[must_use]
    pub fn server_config(&self, (host, port): (IpAddr, i32), ports_dir: &str, now: i64) -> String {
        let operator = self.operator.public_key();
        let account = self.account.public_key();
        let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1});
        let operator_jwt = token(&operator, "nex", (now, None), &json!({"type": "operator", "version": 2}), &self.operator);
        let permissions = json!({"pub": {}, "sub": {}});
        let nats = json!({"type": "account", "version": 2, "limits": limits, "default_permissions": permissions});
        let account_jwt = token(&account, "nex-bus", (now, None), &nats, &self.operator);
        // Its server remembers 10,000 closed connections for its monitoring, which nobody reads: 4 KiB for each agent that there was.
        format!(
            "listen: \"{host}:{port}\"\nmax_closed_clients: 16\nports_file_dir: \"{ports_dir}\"\nserver_name: \"nex-bus\"\nmax_payload: 8MB\nmax_pending: 64MB\n\
             operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {account}: {account_jwt} }}\n"
        )
    }

    /// A user for the node itself: the whole bus.
    #[must_use]
    pub fn node_user(&self, now: i64) -> NatsUser {
        self.user("node", now, json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}))
    }

    /// A user for one agent: its own subjects, its own inbox, answers to what it was asked, nothing else.
    #[must_use]
    pub fn agent_user(&self, agent: &AgentId, now: i64) -> NatsUser {
        let publish = json!({"allow": [subject::from_agent(agent)]});
        let subscribe = json!({"allow": [subject::verbs(agent), format!("{}.>", subject::inbox(agent))]});
        // One answer to each request, however long it takes: 10 minutes is far over the longest call.
        let answers = json!({"max": 1, "ttl": 600_000_000_000_u64});
        let nats = json!({
            "type": "user", "version": 2, "pub": publish, "sub": subscribe, "resp": answers, "subs": -1, "data": -1, "payload": -1,
        });
        self.user(agent.as_str(), now, nats)
    }

    fn user(&self, name: &str, now: i64, nats: Value) -> NatsUser {
        NatsUser::mint(Signer { key: &self.account, account: None }, name, (now, None), nats)
    }
}
