//! Agents: made in sandboxes, met on the internal bus, asked to host instances, and ended.
//!
//! | file | what is in it |
//! |---|---|
//! | [`router`] | the one subscription on which agents speak, and who listens to which instance |
//! | [`inbox`] | what waits there for one instance: events, logs, host calls |
//! | [`agent`] | an agent after its handshake: its sandbox, its health |
//! | [`instance`] | one start of a workload on an agent: deployed, invoked, undeployed |
//! | [`factory`] | sandbox + handshake = an agent for the pool |
//! | [`shared`] | agents that functions of a namespace share; [`seating`] decides who goes where, [`left`] is what another process left |

pub mod agent;
pub mod factory;
pub mod inbox;
pub mod instance;
pub mod left;
pub mod router;
pub mod seating;
pub mod shared;

pub use agent::{Agent, AgentLost, AgentRecord};
pub use factory::AgentFactory;
pub use instance::{Begun, Instance, InstanceError, Invoked, Invoker, Streamed};
pub use left::{LeftAgent, LeftSeat};
pub use router::AgentRouter;
pub use shared::{Seat, SharedAgents};
