//! The wire: every subject, body, header, error and event that crosses a process boundary. No I/O, no clock.

pub mod digest;
pub mod host;
