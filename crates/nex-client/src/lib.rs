//! The way to reach nodes from a program: discover, place, deploy, call, watch, stop. The `nex` command uses nothing else.
//!
//! | room | what is in it |
//! |---|---|
//! | [`gather`] | one question, many answers: when to stop waiting |
//! | [`discover`] | who is there, what runs where |
//! | [`auction`] | who would take a workload, and why others would not |
//! | [`artifact`] | the file of a workload, in an object store |
//! | [`image`] | images of the namespace, kept in NATS |
//! | [`deploy`] | start and stop |
//! | [`secret`] | values that only the nodes can open that use them |
//! | [`request`] | one question to one node |
//! | [`call`] | call a function |
//! | [`dead`] | messages that triggers gave up |
//! | [`replay`] | call a workload with a message once more, its host calls answered from their record |
//! | [`watch`] | logs and events as they happen |
//! | [`history`] | those that nodes have kept |
//!
//! Every error says what failed and why; where there is something to do about it, the text ends in `; next: …`.

pub mod again;
pub mod artifact;
pub mod auction;
pub mod call;
pub mod dead;
pub mod deploy;
pub mod discover;
pub mod gather;
pub mod history;
pub mod image;
pub mod replay;
pub mod request;
pub mod secret;
pub mod watch;

use std::time::Duration;

use async_nats::jetstream;
use nex_protocol::id::Namespace;

/// Longest wait of a request to one node, unless [`Client::with_timeout`] says otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for a deploy or stop, unless [`Client::with_deploy_timeout`] says otherwise: the node fetches the artifact
/// meanwhile, or lets the workload end.
pub const DEPLOY_TIMEOUT: Duration = Duration::from_secs(30);

/// A namespace of a NATS system, as its users reach it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    nats: async_nats::Client,
    namespace: Namespace,
    timeout: Duration,
    deploy_timeout: Duration,
    trusts_unsigned_nodes: bool,
}

impl Client {
    /// A client of a namespace on a connection.
    #[must_use]
    pub fn new(nats: async_nats::Client, namespace: Namespace) -> Self {
        Self { nats, namespace, timeout: REQUEST_TIMEOUT, deploy_timeout: DEPLOY_TIMEOUT, trusts_unsigned_nodes: false }
    }

    /// The same with another longest wait for requests to one node (deploy and stop excepted).
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The same with another longest wait for deploy and stop.
    #[must_use]
    pub fn with_deploy_timeout(self, deploy_timeout: Duration) -> Self {
        Self { deploy_timeout, ..self }
    }

    /// The same, waiting so much longer for deploy and stop.
    #[must_use]
    pub fn with_patience(self, more: Duration) -> Self {
        Self { deploy_timeout: self.deploy_timeout + more, ..self }
    }

    /// The same, sending environments also to nodes that do not sign their keys, as those of 0.2.7.
    #[must_use]
    pub fn trusting_unsigned_nodes(self, trusts_unsigned_nodes: bool) -> Self {
        Self { trusts_unsigned_nodes, ..self }
    }

    /// `JetStream`, in a domain if one is named.
    pub(crate) fn jetstream(&self, domain: Option<&str>) -> jetstream::Context {
        match domain {
            Some(domain) if !domain.is_empty() => jetstream::with_domain(self.nats.clone(), domain),
            _ => jetstream::new(self.nats.clone()),
        }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The connection.
    #[must_use]
    pub fn nats(&self) -> &async_nats::Client {
        &self.nats
    }
}
