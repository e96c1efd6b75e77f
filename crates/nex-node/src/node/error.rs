//! Why a node did not start, or had to end.

use nex_bus::connect::ConnectError;
use nex_bus::denials::Denial;

use crate::bus::BusError;
use crate::journal::JournalError;
use crate::sandbox::SandboxError;
use crate::service_users::ServiceUsersError;
use crate::state_dir::StateError;

/// Why a node did not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The user's NATS.
    #[error("failed to connect to NATS server")]
    Connect(#[from] ConnectError),
    /// The sandboxes.
    #[error("failed to prepare the sandboxes")]
    Sandboxes(#[from] SandboxError),
    /// The guests' network.
    #[error("failed to let microVMs reach the internal NATS server")]
    Network(#[from] nex_network::NetworkError),
    /// The internal bus.
    #[error("failed to start the internal NATS server")]
    Bus(#[from] BusError),
    /// The user's NATS does not permit what a node needs.
    #[error("the node cannot answer")]
    Denied(#[from] Denial),
    /// A connection that stood refused a subscription.
    #[error("failed to subscribe on NATS")]
    Nats(#[source] async_nats::Error),
    /// A context that the configuration names for the host services of a namespace.
    #[error("the host services of a namespace have no usable NATS context")]
    HostServiceContext(#[from] nex_bus::context::ContextError),
    /// The host services' configuration.
    #[error("the host services cannot be used:\n  - {}", .0.join("\n  - "))]
    HostServices(Vec<String>),
    /// What makes users of NATS for services.
    #[error(transparent)]
    ServiceUsers(#[from] ServiceUsersError),
    /// The listener for HTTP.
    #[error(transparent)]
    Http(#[from] nex_http::GatewayError),
    /// The configuration asks for what the sandboxes do not give.
    #[error("{0}; next: change isolation or sandbox in the configuration")]
    Isolation(String),
    /// The very first agent could not be made: there is no reason to go on.
    #[error("the first agent could not be made: {0}; next: run 'nex node preflight' to see what this host lacks")]
    FirstAgent(String),
}
