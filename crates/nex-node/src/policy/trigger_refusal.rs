//! Why a trigger is refused.

use nex_protocol::trigger::TriggerError;

/// Why a trigger is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TriggerRefusal {
    /// It cannot be read.
    #[error("Invalid deploy request: {0}")]
    Invalid(#[from] TriggerError),
    /// A bucket by the name of its stream.
    #[error("Invalid deploy request: the stream {0} is that of a bucket; next: write kv:BUCKET or object:BUCKET")]
    Bucket(String),
    /// A stream or bucket of somebody else.
    #[error(
        "Invalid deploy request: {0} is for this namespace's workloads not to read: it is a node's, a server's or another \
         namespace's; next: name one that is yours"
    )]
    OfOthers(String),
    /// Dead letters that would become dead letters.
    #[error(
        "Invalid deploy request: a trigger on {0} would put what fails there where it came from; next: add dead=none to the trigger"
    )]
    DeadLettersOfDeadLetters(String),
    /// Two that hear the same.
    #[error(
        "Invalid deploy request: {one} and {other} have messages in common, which would each be handled twice; next: narrow one"
    )]
    Overlap {
        /// The one.
        one: String,
        /// The other.
        other: String,
    },
    /// The operator says which subjects, and it is not among them.
    #[error(
        "Invalid deploy request: {0} is not confined to subjects allowed to this namespace; next: give it a filter within them, or have \
         this node's operator add its subjects to allow_trigger_subjects"
    )]
    NotAllowed(String),
}

impl TriggerRefusal {
    /// Whether it is what was written that is wrong, not who wrote it.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Bucket(_) | Self::DeadLettersOfDeadLetters(_) | Self::Overlap { .. })
    }
}
