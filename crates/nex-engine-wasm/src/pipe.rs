//! Standard output and standard error of an instance.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use nex_engine::{LineWriter, Output, Stream};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// Maximum bytes per write of a guest; also bounds the host's allocation.
const MAX_WRITE_BYTES: usize = 64 * 1024;

/// Consumer of a stream's bytes; always ready.
pub(crate) trait Sink: Send + 'static {
    /// Whether it takes more after these.
    fn take(&mut self, bytes: Bytes) -> bool;
}

/// Why a write ends its instance.
#[derive(Debug, thiserror::Error)]
#[error("too much was written")]
pub(crate) struct TooMuch;

/// All of standard output, as long as it stays within the limit.
#[derive(Debug)]
pub(crate) struct Reply {
    limit: usize,
    written: usize,
    // A reply written in one piece is passed on without a copy.
    first: Bytes,
    joined: BytesMut,
}

impl Reply {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, written: 0, first: Bytes::new(), joined: BytesMut::new() }
    }

    /// The reply, or its size if that exceeds the limit.
    pub(crate) fn finish(&mut self) -> Result<Bytes, usize> {
        match self.written {
            over if over > self.limit => Err(over),
            _ if self.joined.is_empty() => Ok(std::mem::take(&mut self.first)),
            _ => Ok(std::mem::take(&mut self.joined).freeze()),
        }
    }
}

impl Sink for Reply {
    fn take(&mut self, bytes: Bytes) -> bool {
        self.written = self.written.saturating_add(bytes.len());
        if self.written > self.limit {
            // Keep counting for the error, but drop the bytes.
            self.first = Bytes::new();
            self.joined = BytesMut::new();
        } else if self.first.is_empty() && self.joined.is_empty() {
            self.first = bytes;
        } else {
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
            self.joined.extend_from_slice(&bytes);
        }
        // All of it is counted, for the error.
        true
    }
}

/// Lines of the log, as long as they stay within the limit.
#[derive(Debug)]
pub(crate) struct Log {
    output: Output,
    errors: LineWriter,
    /// Standard output, where that is not the reply.
    lines: LineWriter,
    limit: Option<u64>,
    written: u64,
}

/// The standard output of an instance whose reply is another.
#[derive(Debug)]
pub(crate) struct LoggedOutput(pub(crate) Pipe<Log>);

impl Log {
    pub(crate) fn new(output: Output, limit: Option<u64>) -> Self {
        let of = |stream| LineWriter::new(output.clone(), stream);
        let (errors, lines) = (of(Stream::Stderr), of(Stream::Stdout));
        Self { output, errors, lines, limit, written: 0 }
    }

    /// Writes to standard output; gives whether more is taken after it.
    fn write(&mut self, bytes: &[u8]) -> bool {
        self.written = self.written.saturating_add(bytes.len() as u64);
        let goes_on = self.is_over().is_none();
        if goes_on {
            self.lines.write(bytes);
        }
        goes_on
    }

    /// Writes a whole line to either stream; gives whether more is taken after it.
    pub(crate) fn line(&mut self, stream: Stream, text: &str) -> bool {
        self.written = self.written.saturating_add(text.len() as u64);
        let goes_on = self.is_over().is_none();
        if goes_on {
            self.output.line(stream, text);
        }
        goes_on
    }

    /// The limit, if it was reached.
    pub(crate) fn is_over(&self) -> Option<u64> {
        self.limit.filter(|limit| self.written > *limit)
    }
}

impl Sink for Log {
    fn take(&mut self, bytes: Bytes) -> bool {
        self.written = self.written.saturating_add(bytes.len() as u64);
        let goes_on = self.is_over().is_none();
        if goes_on {
            self.errors.write(&bytes);
        }
        goes_on
    }
}

impl Sink for LoggedOutput {
    fn take(&mut self, bytes: Bytes) -> bool {
        self.0.lock().write(&bytes)
    }
}

/// The handle an instance writes to and the host reads from.
#[derive(Debug)]
pub(crate) struct Pipe<S>(Arc<Mutex<S>>);

impl<S> Pipe<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self(Arc::new(Mutex::new(sink)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Clone for Pipe<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Sink> IsTerminal for Pipe<S> {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl<S: Sink> StdoutStream for Pipe<S> {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl<S: Sink> OutputStream for Pipe<S> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        match self.lock().take(bytes) {
            true => Ok(()),
            false => Err(StreamError::Trap(TooMuch.into())),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE_BYTES)
    }
}

#[wasmtime_wasi::async_trait]
impl<S: Sink> Pollable for Pipe<S> {
    async fn ready(&mut self) {}
}

impl<S: Sink> AsyncWrite for Pipe<S> {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.lock().take(Bytes::copy_from_slice(bytes)) {
            true => Poll::Ready(Ok(bytes.len())),
            false => Poll::Ready(Err(io::Error::other(TooMuch))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_everything_written_or_its_size() {
        let mut reply = Reply::new(4);
        ["a", "", "bc", "d"].into_iter().for_each(|text| assert!(reply.take(text.into())));
        assert_eq!(reply.finish(), Ok(Bytes::from("abcd")));
        reply.take("e".into());
        reply.take("fg".into());
        assert_eq!(reply.finish(), Err(7));
        assert_eq!(Reply::new(0).finish(), Ok(Bytes::new()));
    }
}
