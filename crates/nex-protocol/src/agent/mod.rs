//! What a node and its agents say to each other on the internal bus: agent protocol 2, whose clauses are in `docs/agent-protocol.md`.
//!
//! | file | what is in it |
//! |---|---|
//! | [`subject`] | the subjects of the internal bus |
//! | [`handshake`] | who an agent is, and its first words |
//! | [`verb`] | what a node asks of an agent |
//! | [`invocation`] | one call of a function, and its outcome |
//! | [`report`] | lifecycle events, which are lossless, and logs, which are not |
//! | [`streaming`] | responses that come piece by piece |

pub mod handshake;
pub mod invocation;
pub mod report;
pub mod streaming;
pub mod subject;
pub mod verb;

pub use handshake::{Handshake, Identity, Welcome};
pub use invocation::{HostCalls, Invocation, InvocationError, Limit, Outcome, Reply, TriggerKind};
pub use report::{AgentEvent, EventAck, LogEntry, Logs};
pub use verb::{Answer, Deploy, DirectTriggers, Limits, Ping, Pong, Precompiled, RejectCode, Undeploy, Update};

/// Version of this conversation; a node refuses an agent that speaks another one.
pub const PROTOCOL: u32 = 2;
