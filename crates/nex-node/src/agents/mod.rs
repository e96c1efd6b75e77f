//! Agents: made in sandboxes, met on the internal bus, talked to, and ended.
//!
//! | room | what is in it |
//! |---|---|
//! | [`router`] | the one subscription on which agents speak, and who listens to which |
//! | [`session`] | one agent after its handshake: what the node may ask of it |
//! | [`factory`] | sandbox + handshake = an agent for the pool |

pub mod factory;
pub mod router;
pub mod session;

pub use factory::AgentFactory;
pub use router::AgentRouter;
pub use session::{AgentSession, Gone, NotDeployed};
