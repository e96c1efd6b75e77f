//! HTTP for functions: a listener that makes every request a message of its namespace, and the reply its response.
//!
//! It knows of no function: whoever listens on the subject of a route ([`nex_protocol::trigger::http`]) serves it, on any node. Whoever has no
//! listener gets 404 at once, for NATS says that nobody is there.
//!
//! *Trust:* every byte of a request is a stranger's. Heads, bodies, times and connections are bounded; headers that NATS or nex give a meaning
//! are not taken from outside.

mod config;
mod exchange;
mod gateway;
mod headers;
mod pieces;
mod tls;

pub use config::{HttpConfig, TlsFiles};
pub use gateway::{Gateway, GatewayError};
