//! How far a long thing is, told to whoever shows it.

use std::io::{self, Read};

/// Something to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The next part of the work begins.
    Begin {
        /// What it is, for people.
        what: &'a str,
        /// How many bytes it has, where that is known.
        bytes: Option<u64>,
    },
    /// That many more bytes are done.
    Advance(u64),
}

/// Who shows it.
pub type Report<'a> = dyn FnMut(Progress<'_>) + 'a;

/// A reader that tells of every byte read.
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
