//! Whether a request may be granted: every check before any work, in the order and the words of 0.2.7. Pure but for the node's curve key.

mod deploy;
mod refusal;
mod stop;

pub use deploy::{Admitted, admit, check_digest, check_signed};
pub use refusal::{DeployRefusal, EnvironmentError, StopRefusal};
pub use stop::may_stop;
