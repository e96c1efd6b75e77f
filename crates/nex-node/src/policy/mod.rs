//! Whether a request may be granted: every check before any work, in the order and the words of 0.2.7. Pure but for the node's curve key.

mod demand;
mod deploy;
mod limits;
mod refusal;
mod stop;
mod trigger_refusal;
mod triggers;

pub use demand::{charge, demand};
pub use deploy::{Admitted, admit, check_digest, check_signed};
pub use refusal::{DeployRefusal, EnvironmentError, StopRefusal};
pub use stop::may_stop;
pub use trigger_refusal::TriggerRefusal;
pub use triggers::Triggers;
