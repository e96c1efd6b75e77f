//! The contract between an agent and its engines, which run workloads. Knows nothing of NATS.
//!
//! A *service* runs until it ends or is stopped ([`native`]); a *function* ([`Function`]) is called. The agent verifies the
//! artifact's digest before an engine gets it.

mod cpu;
mod error;
mod function;
mod host;
mod launch;
pub mod native;
mod output;
mod record;
mod response;
mod streaming;
mod trace;

pub use cpu::thread_cpu_time;
pub use error::StartError;
pub use function::{Call, CallError, Function, Reply};
pub use host::HostClient;
pub use launch::{Launch, Limits};
pub use output::{Line, LineWriter, Lines, MAX_LINE_BYTES, MAX_WAITING_BYTES, Output, Stream};
pub use record::Recorder;
pub use response::{Response, TooManyHeaders};
pub use streaming::{NotSent, Streamed, Streaming, streaming};
pub use trace::Trace;
