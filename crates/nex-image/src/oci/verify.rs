//! Verifies a blob against its descriptor while it is read.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::document::Descriptor;
use crate::file::hex;

/// A reader of no more bytes than the descriptor says.
pub(super) struct Verifying<'a, R> {
    inner: R,
    hasher: Sha256,
    seen: u64,
    expected: &'a Descriptor,
}

impl<'a, R: Read> Verifying<'a, R> {
    pub(super) fn new(inner: R, expected: &'a Descriptor) -> Self {
        Self { inner, hasher: Sha256::new(), seen: 0, expected }
    }

    /// Reads the rest and checks size and digest.
    pub(super) fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        let longer = self.inner.read(&mut [0])? > 0;
        if self.seen != self.expected.size || longer {
            let has = if longer { "more".to_owned() } else { self.seen.to_string() };
            return Err(io::Error::other(format!("it has {has} of the {} bytes it should have", self.expected.size)));
        }
        let actual = hex(&self.hasher.finalize());
        if actual != self.expected.digest.hex() {
            return Err(io::Error::other(format!("its content has the digest sha256:{actual}")));
        }
        Ok(())
    }
}

impl<R: Read> Read for Verifying<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.expected.size - self.seen).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..left).unwrap_or_default();
        if part.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(part)?;
        self.hasher.update(part.get(..count).unwrap_or_default());
        self.seen += count as u64;
        Ok(count)
    }
}
