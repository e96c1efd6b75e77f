//! What the bus proves with that it is the bus: a certificate of its own, in the identity of every agent.
//!
//! Where jailed processes share the host's network, a workload can take the bus's port in the pause after its death. Neither the node nor
//! an agent says a word to a server that has not this certificate's key, which never leaves the node's state directory.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::server::BusError;
use crate::state_dir::write_private;

/// Seconds that a client's handshake may take: a guest that is emulated on a busy host needs more than the server's own two.
const TLS_TIMEOUT: u32 = 15;

/// A certificate and its key: the bus's own, for its life. A node process that takes over a running bus goes on with them; with a bus
/// that was stopped in order, they are over.
pub(super) struct BusProof {
    certificate: String,
    certificate_file: PathBuf,
    key_file: PathBuf,
}

impl BusProof {
    /// For a server at one address, whose files are in `dir`.
    pub(super) fn make(dir: &Path, host: IpAddr) -> Result<Self, BusError> {
        let made = rcgen::generate_simple_self_signed([host.to_string()])?;
        let (certificate_file, key_file) = (dir.join("certificate.pem"), dir.join("certificate.key"));
        std::fs::create_dir_all(dir)?;
        let certificate = made.cert.pem();
        write_private(&certificate_file, certificate.as_bytes())?;
        write_private(&key_file, made.signing_key.serialize_pem().as_bytes())?;
        Ok(Self { certificate, certificate_file, key_file })
    }

    /// The one that an earlier node process made there.
    pub(super) fn load(dir: &Path) -> Result<Self, BusError> {
        let (certificate_file, key_file) = (dir.join("certificate.pem"), dir.join("certificate.key"));
        let certificate = std::fs::read_to_string(&certificate_file)?;
        std::fs::metadata(&key_file)?;
        Ok(Self { certificate, certificate_file, key_file })
    }

    /// The certificate, PEM.
    pub(super) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The server's configuration: TLS before a word is said, as clients that trust nobody yet need it.
    pub(super) fn server_config(&self) -> String {
        let (certificate, key) = (self.certificate_file.display(), self.key_file.display());
        format!("tls {{ cert_file: \"{certificate}\", key_file: \"{key}\", handshake_first: true, timeout: {TLS_TIMEOUT} }}\n")
    }
}
