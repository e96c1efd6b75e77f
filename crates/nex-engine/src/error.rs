//! Why a workload could not be started.

/// Why a workload could not be started. The text reaches whoever deployed it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The artifact is not what its type says: does not parse, compile or link.
    #[error("failed to validate workload: {0}")]
    Invalid(String),
    /// The artifact is fine, the host could not run it.
    #[error("failed to start workload: {doing}")]
    Host {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl StartError {
    /// The host could not do something.
    #[must_use]
    pub fn host(doing: impl Into<String>, source: std::io::Error) -> Self {
        Self::Host { doing: doing.into(), source }
    }
}
