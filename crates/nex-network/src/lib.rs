//! The host's side of guests' networks: devices, addresses, routes, packet filter, plug-ins. Knows nothing of nex or NATS.
//!
//! Everything made here carries its owner's name (alias of a device, name of a table, file of a record), so that whoever comes
//! after a crash finds and removes it. Nothing of the host that does not carry it is ever changed.

mod attachment;
mod config;
mod error;
mod network;
mod preflight;

pub use attachment::Attachment;
pub use config::{Allow, CniConfig, Limits, NetworkConfig, NetworkKind, Policy, Rate};
pub use error::NetworkError;
pub use ipnet::Ipv4Net;
pub use network::{Network, remove_leftovers};
pub use preflight::{Lack, check};
