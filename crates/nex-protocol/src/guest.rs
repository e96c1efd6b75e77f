//! What a node and the init of a guest say to each other: one JSON line each, on a stream that the virtual machine monitor provides
//! (a virtio serial port under QEMU, vsock under Firecracker).
//!
//! ```text
//! guest ── ready ──► node          again after every restore from a snapshot that broke the stream
//! guest ◄─ welcome ─ node          who it is; or `metadata`: the same is to be read from MMDS; answered by identified or failed
//! guest ◄─ attach ── node          the artifact is in a drive now; answered by attached or failed
//! guest ◄─ power_off node          the agent is ended, then the machine
//! ```
//!
//! *Trust:* the node believes nothing of it beyond "this machine is ready"; the guest believes the stream, for only its host can write to it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// Longest line either side accepts, bytes.
pub const MAX_LINE: usize = 64 * 1024;
/// Name of the virtio serial port.
pub const PORT_NAME: &str = "nex";
/// Vsock port on which the node is found (at CID 2).
pub const VSOCK_PORT: u32 = 1024;
/// Key under which a [`GuestIdentity`] stands in the metadata service.
pub const METADATA_KEY: &str = "nex";

/// Node → guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum ToGuest {
    /// The guest's identity.
    #[serde(rename = "welcome")]
    Identity(Box<GuestIdentity>),
    /// The guest's identity is in the metadata service, under [`METADATA_KEY`].
    Metadata,
    /// What was put into a drive is wanted now.
    Attach {
        /// Which of the drives after the root, from 0.
        slot: u8,
    },
    /// The agent is to be ended within this time, and the machine after it.
    PowerOff {
        /// Milliseconds.
        grace_ms: u64,
    },
}

/// Guest → node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum FromGuest {
    /// The guest has no identity yet and waits for one. A snapshot is taken in this state.
    Ready {
        /// Version of the agent in it.
        version: String,
    },
    /// The identity is applied and the agent has its own.
    Identified,
    /// The drive is mounted.
    Attached {
        /// Which.
        slot: u8,
        /// The file in it, as the agent sees it.
        path: String,
    },
    /// What was asked last did not work.
    Failed {
        /// Why.
        message: String,
    },
    /// The agent ended; the machine goes down.
    Ended {
        /// How, for people.
        message: String,
    },
}

/// The identity of a guest. Its `Debug` leaves secrets out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestIdentity {
    /// The line that the agent gets as its identity, untouched.
    pub identity: String,
    /// Its host name.
    pub hostname: String,
    /// Its network; none has only the loopback.
    pub network: Option<GuestNetwork>,
    /// The host's clock, nanoseconds since 1970.
    pub time_unix_nanos: u64,
    /// Fresh randomness for the kernel's pool, base64; at least 32 bytes.
    pub entropy: String,
    /// How the agent is confined inside the guest.
    pub limits: GuestLimits,
    /// The drive, counted from 0 after the root, whose file system becomes the agent's root: the image of its workload. Put in before the
    /// identity is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<u8>,
}

impl fmt::Debug for GuestIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestIdentity").field("hostname", &self.hostname).field("network", &self.network).finish_non_exhaustive()
    }
}

/// The guest's only network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestNetwork {
    /// `aa:bb:cc:dd:ee:ff`; set before the interface is up, because a clone wakes up with its template's.
    pub mac: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// The host's end, default route and name `host.nex.internal`.
    pub gateway: Ipv4Addr,
    /// Largest packet.
    pub mtu: u16,
    /// Name servers; none, and names outside `/etc/hosts` are not resolved.
    pub dns: Vec<IpAddr>,
}

/// Bounds on the agent and its workload inside the guest; the machine's own size bounds memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestLimits {
    /// Uid and gid of the agent and its workload; never 0.
    pub uid: u32,
    /// Processes and threads.
    pub processes: u64,
    /// Open files of a process.
    pub open_files: u64,
    /// Largest file, bytes.
    pub file_bytes: u64,
    /// Size of each of `/tmp` and `/work`, which are memory.
    pub tmp_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_both_sides_expect() {
        let line = serde_json::to_string(&ToGuest::Attach { slot: 0 }).unwrap();
        assert_eq!(line, r#"{"say":"attach","slot":0}"#);
        assert_eq!(serde_json::from_str::<ToGuest>(r#"{"say":"metadata"}"#).unwrap(), ToGuest::Metadata);
        let ready = FromGuest::Ready { version: "1".into() };
        assert_eq!(serde_json::to_string(&ready).unwrap(), r#"{"say":"ready","version":"1"}"#);
        assert_eq!(serde_json::to_string(&FromGuest::Identified).unwrap(), r#"{"say":"identified"}"#);
    }

    #[test]
    fn the_identity_is_never_shown() {
        let identity = GuestIdentity {
            identity: "SECRET".into(),
            hostname: "a".into(),
            network: None,
            time_unix_nanos: 1,
            entropy: "SECRET".into(),
            limits: GuestLimits { uid: 1, processes: 1, open_files: 1, file_bytes: 1, tmp_bytes: 1 },
            root: None,
        };
        assert!(!format!("{:?}", ToGuest::Identity(Box::new(identity))).contains("SECRET"));
    }
}
