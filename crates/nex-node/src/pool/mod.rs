//! Warm pools: agents created before they are needed, each handed out once, refilled on events.
//!
//! Items come from a [`Factory`], so a pool depends on neither sandboxes nor NATS.

mod classes;
pub mod state;
mod warm;

pub use classes::Pools;
pub use warm::{CreateFailed, Factory, LeaseError, Status, WarmPool};
