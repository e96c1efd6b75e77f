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
    /// The server wants a certificate of the client's, and got none.
    #[error("{servers} asks for a client certificate; next: give --tlscert and --tlskey, or cert and key in the NATS context")]
    CertificateWanted {
        /// Whom we asked.
        servers: String,
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The server does not believe the client's certificate.
    #[error(
        "{servers} refuses the client certificate {certificate}; next: give one that its authority has signed for clients and that has not expired"
    )]
    CertificateRefused {
        /// Whom we asked.
        servers: String,
        /// The certificate's file.
        certificate: PathBuf,
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
    /// Nobody answered.
    #[error(
        "no NATS server at {servers}; next: start one (`nex up`, or `nats-server -js`), or name the right one with --server or --context"
    )]
    Unreachable {
        /// Whom we asked.
        servers: String,
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
    /// Somebody took the connection and said nothing, as a server does that begins with TLS.
    #[error(
        "something listens at {servers} and does not speak first, as a NATS server does; next: give --tlsfirst if it begins with TLS, or \
         check the port"
    )]
    Silent {
        /// Whom we asked.
        servers: String,
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
    /// Somebody else listens there.
    #[error("what listens at {servers} is no NATS server: it says {said}; next: check host and port")]
    NotNats {
        /// Whom we asked.
        servers: String,
        /// What it says first.
        said: String,
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
}
