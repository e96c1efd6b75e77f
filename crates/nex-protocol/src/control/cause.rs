//! Why a workload ended, by name (new).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a workload ended. A name that this version does not know is [`ExitCause::Other`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// By itself, with an exit code.
    Exit,
    /// A signal that nobody here sent.
    Signal,
    /// The kernel killed it because the memory of its sandbox was used up.
    OutOfMemory,
    /// A limit of its process: CPU time, size of a file.
    Limit,
    /// It was sick by its health check, or never well.
    Health,
    /// With its agent, its machine or its node.
    Lost,
    /// The deadline of a job.
    Deadline,
    /// Somebody stopped it.
    Stopped,
    /// Its node was stopped.
    NodeStopped,
    /// It could not be started.
    NotStarted,
    /// None of these.
    #[default]
    #[serde(other)]
    Other,
}

impl ExitCause {
    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::OutOfMemory => "out_of_memory",
            Self::Limit => "limit",
            Self::Health => "health",
            Self::Lost => "lost",
            Self::Deadline => "deadline",
            Self::Stopped => "stopped",
            Self::NodeStopped => "node_stopped",
            Self::NotStarted => "not_started",
            Self::Other => "other",
        }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_other(&self) -> bool {
        *self == Self::Other
    }
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_read_as_it_is_written_and_a_new_one_is_none_of_these() {
        for cause in [ExitCause::Exit, ExitCause::OutOfMemory, ExitCause::NodeStopped, ExitCause::Other] {
            let text = serde_json::to_string(&cause).unwrap();
            assert_eq!(text, format!("\"{cause}\""));
            assert_eq!(serde_json::from_str::<ExitCause>(&text).unwrap(), cause);
        }
        assert_eq!(serde_json::from_str::<ExitCause>("\"meteorite\"").unwrap(), ExitCause::Other);
    }
}
