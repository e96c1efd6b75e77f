//! Reads a stream line by line with bounded memory, whatever the writer does.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::unix::pipe::Receiver;

/// Takes lines of a child's output, without their line break; called from a task, so it must not block.
pub type LineSink = Arc<dyn Fn(&str) + Send + Sync>;

/// A longer line is delivered in pieces of this many bytes.
pub const MAX_LINE: usize = 8 * 1024;

/// Hands every line to the sink until the stream ends. Bytes that are no UTF-8 become replacement characters.
pub async fn pump<R: AsyncRead + Unpin>(stream: R, sink: LineSink) {
    let mut reader = BufReader::with_capacity(MAX_LINE, stream);
    let mut line = Vec::new();
    loop {
        // Treat a read error as the end of the stream.
        let taken = match reader.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(chunk) => collect(chunk, &mut line, &sink),
        };
        reader.consume(taken);
    }
    if !line.is_empty() {
        deliver(&mut line, &sink);
    }
}

/// A pipe whose writer never breaks it, because it could read it as well, and never waits: what does not fit is lost.
pub(crate) fn lossy_pipe() -> io::Result<(Receiver, File)> {
    let (reader, writer) = io::pipe()?;
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let writer = OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    Ok((Receiver::from_owned_fd(reader.into())?, writer))
}

fn collect(chunk: &[u8], line: &mut Vec<u8>, sink: &LineSink) -> usize {
    for part in chunk.split_inclusive(|byte| *byte == b'\n') {
        let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
        for piece in text.chunks(MAX_LINE) {
            if line.len() + piece.len() > MAX_LINE {
                deliver(line, sink);
            }
            line.extend_from_slice(piece);
        }
        if ends {
            deliver(line, sink);
        }
    }
    chunk.len()
}

fn deliver(line: &mut Vec<u8>, sink: &LineSink) {
    let text = line.strip_suffix(b"\r").unwrap_or(line);
    sink(&String::from_utf8_lossy(text));
    line.clear();
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    async fn lines_of(input: &[u8]) -> Vec<String> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        pump(input, Arc::new(move |line: &str| sink.lock().unwrap().push(line.to_owned()))).await;
        let lines = seen.lock().unwrap();
        lines.clone()
    }

    #[tokio::test]
    async fn lines_arrive_whole_and_the_last_needs_no_break() {
        assert_eq!(lines_of(b"one\r\n\ntwo\nthree").await, ["one", "", "two", "three"]);
        assert_eq!(lines_of(b"").await, Vec::<String>::new());
        assert_eq!(lines_of(b"\xff\n").await, ["\u{fffd}"]);
    }

    #[tokio::test]
    async fn an_endless_line_arrives_in_bounded_pieces() {
        let input = vec![b'x'; 3 * MAX_LINE + 5];
        let lines = lines_of(&input).await;
        assert!(lines.iter().all(|line| line.len() <= MAX_LINE));
        assert_eq!(lines.concat().len(), input.len());
    }
}
