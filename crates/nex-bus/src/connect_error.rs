//! Why there is no connection.

use std::path::PathBuf;

/// No connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file that the settings name could not be read.
    #[error("cannot read the {what} {path}; next: check its path and permissions")]
    Read {
        /// What the file is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file or value of the settings is not what it should be.
    #[error("{what} {why}; next: {next}")]
    Settings {
        /// Which setting.
        what: String,
        /// What is wrong with it.
        why: String,
        /// What to do.
        next: &'static str,
    },
    /// The server does not know us, or does not let us in.
    #[error("{servers} refused the connection; next: check user, password, token, creds or nkey, or the NATS context")]
    Refused {
        /// Whom we asked.
        servers: String,
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
    /// TLS did not come about.
    #[error(
        "no TLS connection to {servers}; next: check certificate, key and root certificates, and whether the server speaks TLS"
    )]
    Tls {
        /// Whom we asked.
        servers: String,
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
    /// Nobody answered.
    #[error("no NATS server at {servers}; next: start one (`nats-server -js`) or name the right one")]
    Unreachable {
        /// Whom we asked.
        servers: String,
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
}
