//! The host's side of guests' networks: devices, addresses, routes, packet filter, plug-ins. Independent of nex and NATS.
//!
//! Everything made here carries its owner's name (alias of a device, name of a table, file of a record), so that the next process
//! finds and removes it after a crash. Nothing else of the host is ever changed.

mod attachment;
mod blocking;
mod builtin;
mod cni;
mod config;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod gateway;
mod leftovers;
mod names;
mod namespace;
mod netns;
mod network;
mod nft;
mod preflight;
mod program;
mod rules;
mod sysctl;

pub use attachment::Attachment;
pub use config::{Allow, CniConfig, Limits, NetworkConfig, NetworkKind, Policy};
pub use error::NetworkError;
pub use ipnet::Ipv4Net;
pub use leftovers::remove_leftovers;
pub use network::Network;
pub use nex_netlink::Rate;
pub use preflight::{MissingRequirement, check};
pub use sysctl::forwards;
