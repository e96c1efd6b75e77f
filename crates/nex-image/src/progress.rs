//! Progress reports of long operations.

use std::io::{self, Read};

/// A progress report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The next step begins.
    Begin {
        /// Its name, for people.
        what: &'a str,
        /// Its size in bytes, if known.
        bytes: Option<u64>,
    },
    /// This many more bytes are done.
    Advance(u64),
}

/// Receives the reports.
pub type Report<'a> = dyn FnMut(Progress<'_>) + 'a;

/// A reader that reports the bytes read.
pub(crate) struct ProgressReader<'a, 'r, R> {
    pub(crate) inner: R,
    pub(crate) report: &'a mut Report<'r>,
}

impl<R: Read> Read for ProgressReader<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.report)(Progress::Advance(count as u64));
        Ok(count)
    }
}
