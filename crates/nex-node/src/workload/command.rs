//! What others may tell a workload's driver, and what they see of it.

use std::time::Duration;

use tokio::sync::oneshot;

use super::launch_error::LaunchError;
use super::state::Phase;

/// What others see of a workload's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Where it is.
    pub phase: Phase,
    /// How often it was started again.
    pub restarts: u32,
}

/// What others may tell a workload.
#[derive(Debug)]
pub enum Command {
    /// Stop; the sender hears when nothing is left.
    Stop {
        /// Why, for the event.
        reason: &'static str,
        /// The time it has to end in order; the node's own stop grace if that is longer.
        grace: Duration,
        /// Dropped or used when it is done.
        done: oneshot::Sender<()>,
    },
    /// The node drains: no more restarts.
    LameDuck,
}

/// How the first start went.
pub type FirstStart = Result<(), LaunchError>;
