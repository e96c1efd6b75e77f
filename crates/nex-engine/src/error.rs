//! Why a workload could not be started.

/// Why a workload could not be started. The text reaches whoever deployed it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The artifact is not of its type: it does not parse, compile or link.
    #[error("failed to validate workload: {0}")]
    Invalid(String),
    /// The artifact is valid, but the host cannot run it.
    #[error("failed to start workload: {doing}")]
    Host {
        /// What was being done.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl StartError {
    /// An operation of the host failed.
    #[must_use]
    pub fn host(doing: impl Into<String>, source: std::io::Error) -> Self {
        Self::Host { doing: doing.into(), source }
    }
}
