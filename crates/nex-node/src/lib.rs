//! The node as a library: joins a NATS system, takes workloads, keeps them running, and tells the world.
//!
//! It never runs user code and links no engine: that is the agents' work, each in a sandbox of its own.
//!
//! | room | what is in it |
//! |---|---|
//! | [`node`], [`status`], [`rehearsal`] | start, stop, what the node says of itself; what a start would meet |
//! | [`config`] | the JSON configuration: as written, and as meant |
//! | [`state_dir`], [`journal`], [`identity`], [`leftovers`], [`restore`] | what outlives the process |
//! | [`bus`] | the internal NATS server and who may say what on it |
//! | [`sandbox`], [`agents`], [`pool`] | where agents live, what they say, and a pool of warm ones |
//! | [`control`], [`policy`], [`issuers`], [`registry`], [`quota`] | requests, whether they may, whether there is room |
//! | [`admission`], [`workload`], [`artifacts`], [`secrets`], [`service_users`], `rotation` | from an admitted request to a workload, and its life |
//! | [`trigger`], [`direct`], [`called`], [`callees`], [`connections`], [`host_calls`] | how a function is called, or a service asked, and what it may call |
//! | [`durable`] | triggers whose messages are kept until they are dealt with |
//! | [`embedded`] | the NATS server of `nex up` |
//! | [`events`], [`logs`], [`tail`], [`ended`], [`call_reporter`], [`outbox`] | what the world is told |
//! | [`history`] | what is kept of that, for who asks later |

pub mod admission;
pub mod agents;
pub mod artifacts;
pub mod bus;
pub mod call_reporter;
pub mod called;
pub mod callees;
pub mod clock;
pub mod compiler;
pub mod config;
pub mod connections;
pub mod control;
pub mod direct;
pub mod durable;
pub mod embedded;
pub mod ended;
pub mod events;
pub mod history;
pub mod host_calls;
pub mod identity;
pub mod images;
pub mod issuers;
pub mod journal;
mod leftovers;
pub mod logs;
mod namespace_connections;
pub mod nats_user;
pub mod node;
pub mod offered_nats;
pub mod outbox;
mod pieces;
pub mod policy;
pub mod pool;
pub mod quota;
pub mod registry;
pub mod rehearsal;
mod restore;
mod rotation;
pub mod sandbox;
pub mod secrets;
pub mod service_users;
pub mod state_dir;
pub mod status;
pub mod tail;
pub mod trigger;
pub mod workload;

pub use config::{NodeConfig, RawConfig};
pub use node::{Node, NodeError, NodeOptions};
pub use status::VERSION;
