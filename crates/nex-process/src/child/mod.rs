//! Starts and owns child processes.
//!
//! A child gets a session of its own (Ctrl-C of the terminal does not reach it), an environment with nothing inherited and no
//! descriptor but its three streams and those explicitly given. It is *not* tied to its starter's life: agents outlive a killed node.
//! Therefore [`Output::Lines`] suits programs that survive a broken pipe; give others [`Output::LossyLines`] or a file. Neither pipe blocks
//! its writer when the reader is gone, as a full file or socket may.
//!
//! Dropping a [`Child`] kills its process group; [`Child::release`] lets it keep running, and [`Child::adopt`] takes it over.

mod entry;
mod exit;
mod handle;
mod spec;

pub use crate::lines::LineSink;
pub use exit::Exit;
pub use handle::{Child, Rung, Stopped};
pub use spec::{ChildSpec, Output, SpawnError, Stdin};
