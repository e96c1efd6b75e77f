//! Netlink: network devices, IPv4 addresses, routes and traffic control. Blocking, for threads that may block.
//!
//! The node uses it for its guests' networks, the agent as the init of a guest. It depends on nothing else of the project, so the agent
//! stays small.

mod link;
mod message;
mod route;
mod socket;
mod tc;

pub use link::{Link, LinkChange, Peer};
pub use route::{Route, RouteEntry};
pub use socket::Netlink;
pub use tc::Rate;

/// Parses a datagram as every kind of answer, for `fuzz/`.
#[doc(hidden)]
pub fn parse_all(datagram: &[u8]) {
    for (_, reply) in message::messages(datagram) {
        drop((link::link(&reply.body), route::address(&reply.body), route::route(&reply.body)));
    }
}
