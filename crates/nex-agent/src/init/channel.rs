//! The stream to the node: lines over a virtio serial port where there is one of our name, else over vsock.
//!
//! Either may break at any time, above all when the machine resumes as a clone of a snapshot. It is then reopened, without limit.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nex_process::Deadline;
use nex_protocol::guest::{FromGuest, MAX_LINE, PORT_NAME, ToGuest, VSOCK_PORT};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, getsockopt, socket, sockopt::SocketError};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Delay between the first two attempts to open the stream, which a fresh clone waits for; it doubles up to the longest one, for a guest
/// that outlives its node.
const RETRY: Duration = Duration::from_millis(20);
const LONGEST_RETRY: Duration = Duration::from_millis(300);
/// Longest time to write a line; a node that does not read is taken for gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Context id of a machine's host.
const HOST_CID: u32 = libc::VMADDR_CID_HOST;

/// The stream, open or not.
pub(super) struct Channel {
    stream: Option<AsyncFd<OwnedFd>>,
    unread: Vec<u8>,
    retry: Duration,
}

/// An event of the stream.
#[derive(Debug)]
pub(super) enum Received {
    /// It was opened.
    Connected,
    /// A line.
    Line(ToGuest),
    /// A line that is not a message.
    Malformed(String),
}

impl Channel {
    /// A stream that is not open yet.
    pub(super) fn new() -> Self {
        Self { stream: None, unread: Vec::new(), retry: RETRY }
    }

    /// Opens the stream if it is not open, then waits for a line.
    ///
    /// # Cancel safety
    /// May be dropped and called again: what was read is kept.
    pub(super) async fn recv(&mut self) -> Received {
        loop {
            let Some(stream) = &self.stream else {
                self.unread.clear();
                match open().await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        self.retry = RETRY;
                        return Received::Connected;
                    }
                    Err(_not_yet) => {
                        tokio::time::sleep(self.retry).await;
                        self.retry = longer(self.retry);
                    }
                }
                continue;
            };
            if let Some(heard) = next_line(&mut self.unread) {
                return heard;
            }
            let mut chunk = [0; 4096];
            match read(stream, &mut chunk).await {
                Ok(count @ 1..) => self.unread.extend(chunk.iter().take(count)),
                Ok(0) | Err(_) => {
                    self.renew();
                    if self.stream.is_some() {
                        return Received::Connected;
                    }
                }
            }
        }
    }

    /// Writes a line; a broken stream is reopened by the next [`Self::recv`].
    pub(super) async fn send(&mut self, message: &FromGuest) {
        let Ok(mut line) = serde_json::to_vec(message) else { return };
        line.push(b'\n');
        let by = Deadline::after(WRITE_TIMEOUT);
        while let Some(stream) = &self.stream {
            match by.bound(write(stream, &line)).await {
                Ok(Ok(())) => return,
                Ok(Err(_broken)) => self.renew(),
                Err(_elapsed) => self.stream = None,
            }
        }
    }

    /// After a break: keeps a port whose other end is connected again, because closing it would lose data. The stream is registered
    /// again, because its registration remembers the break.
    fn renew(&mut self) {
        let descriptor = self.stream.take().map(AsyncFd::into_inner);
        self.stream = descriptor.filter(|it| !is_hung_up(it)).and_then(|it| register(it).ok());
    }
}

/// Takes the first complete line out of the buffer. A line that is too long is dropped with everything buffered after it.
fn next_line(unread: &mut Vec<u8>) -> Option<Received> {
    let Some(end) = unread.iter().position(|byte| *byte == b'\n') else {
        if unread.len() <= MAX_LINE {
            return None;
        }
        unread.clear();
        return Some(Received::Malformed(format!("a line is longer than {MAX_LINE} bytes")));
    };
    let line: Vec<u8> = unread.drain(..=end).collect();
    Some(match serde_json::from_slice(&line) {
        Ok(message) => Received::Line(message),
        Err(error) => {
            Received::Malformed(format!("a line is not understood: {error}; next: use a node and an image of one build"))
        }
    })
}

/// Reads until there is something. A virtio port hands out one buffer at a time, so only "would block" means that it is empty.
async fn read(stream: &AsyncFd<OwnedFd>, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        // A vsock stream that a restore has reset reports an error alone, which is neither "readable" nor "closed".
        let mut ready = stream.ready(Interest::READABLE | Interest::ERROR).await?;
        // Read before `try_io`, which clears the guard.
        let is_closed = ready.ready().is_read_closed() || ready.ready().is_error();
        if let Ok(done) = ready.try_io(|stream| Ok(nix::unistd::read(stream.get_ref(), chunk)?)) {
            return done;
        }
        // A closed stream is always "ready": waiting for more would be a busy loop.
        if is_closed {
            return Ok(0);
        }
    }
}

async fn write(stream: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = stream.writable().await?;
        let is_closed = ready.ready().is_write_closed();
        match ready.try_io(|stream| Ok(nix::unistd::write(stream.get_ref(), bytes)?)) {
            Ok(count) => bytes = bytes.get(count?..).unwrap_or_default(),
            // A port without a reader accepts nothing and is always "ready".
            Err(_) if is_closed => return Err(io::ErrorKind::BrokenPipe.into()),
            Err(_would_block) => {}
        }
    }
    Ok(())
}

async fn open() -> io::Result<AsyncFd<OwnedFd>> {
    match port() {
        Some(path) => {
            let port = fs::File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
            let port = OwnedFd::from(port);
            // Keep it open meanwhile: closing it would lose data.
            let mut retry = RETRY;
            while is_hung_up(&port) {
                tokio::time::sleep(retry).await;
                retry = longer(retry);
            }
            register(port)
        }
        None => vsock().await,
    }
}

fn longer(retry: Duration) -> Duration {
    (retry * 2).min(LONGEST_RETRY)
}

/// Whether the other end is disconnected.
fn is_hung_up(stream: &OwnedFd) -> bool {
    let half = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | half;
    let mut asked = [PollFd::new(stream.as_fd(), half)];
    poll(&mut asked, PollTimeout::ZERO).is_err() || asked.iter().any(|it| it.revents().is_none_or(|found| found.intersects(gone)))
}

/// The device of the port with our name.
fn port() -> Option<PathBuf> {
    let mut ports = fs::read_dir("/sys/class/virtio-ports").ok()?.flatten();
    let ours = ports.find(|port| fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim_end() == PORT_NAME))?;
    Some(PathBuf::from("/dev").join(ours.file_name()))
}

async fn vsock() -> io::Result<AsyncFd<OwnedFd>> {
    let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    match connect(socket.as_raw_fd(), &VsockAddr::new(HOST_CID, VSOCK_PORT)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = register(socket)?;
    // The guard only says that it is time to look.
    drop(stream.writable().await?);
    match getsockopt(&stream.get_ref().as_fd(), SocketError)? {
        0 => Ok(stream),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[expect(deprecated, reason = "an OwnedFd stays open as long as it is registered, which is all the new unsafe one asks")]
fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE | Interest::WRITABLE | Interest::ERROR)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::UdpSocket;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Channel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Channel { stream: Some(register(ours.into()).unwrap()), unread: Vec::new(), retry: RETRY }, theirs)
    }

    #[tokio::test]
    async fn split_lines_arrive_whole_and_a_malformed_line_is_recognized() {
        let (mut channel, mut node) = pair();
        node.write_all(b"{\"say\":\"att").unwrap();
        let early = tokio::time::timeout(Duration::from_millis(20), channel.recv()).await;
        assert!(early.is_err());
        node.write_all(b"ach\",\"slot\":3}\n{\"say\":\"dance\"}\n").unwrap();
        assert!(matches!(channel.recv().await, Received::Line(ToGuest::Attach { slot: 3 })));
        assert!(matches!(channel.recv().await, Received::Malformed(_)));
        channel.send(&FromGuest::Attached { slot: 3, path: "/a".into() }).await;
        let mut line = [0; 64];
        let count = node.read(&mut line).unwrap();
        assert_eq!(&line[..count], b"{\"say\":\"attached\",\"slot\":3,\"path\":\"/a\"}\n");
    }

    #[tokio::test]
    async fn a_line_without_end_does_not_fill_the_memory() {
        let (mut channel, mut node) = pair();
        let writer = std::thread::spawn(move || node.write_all(&vec![b'x'; MAX_LINE + 4096]).map(|()| node));
        assert!(matches!(channel.recv().await, Received::Malformed(_)));
        drop(writer.join());
    }

    #[tokio::test]
    async fn a_node_that_is_gone_breaks_the_stream_and_nothing_else() {
        let (mut channel, node) = pair();
        drop(node);
        channel.send(&ready()).await;
        channel.send(&ready()).await;
        assert!(channel.stream.is_none());
    }

    /// A socket in the state of a stream after a restore: epoll reports an error, and neither data nor an end.
    #[tokio::test]
    async fn a_stream_with_an_error_and_nothing_else_is_opened_again() {
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(nobody).unwrap();
        socket.set_nonblocking(true).unwrap();
        let refused = socket.try_clone().unwrap();
        let mut channel = Channel { stream: Some(register(socket.into()).unwrap()), unread: Vec::new(), retry: RETRY };
        let silent = tokio::time::timeout(Duration::from_millis(20), channel.recv()).await;
        assert!(silent.is_err(), "nothing has happened yet: {silent:?}");
        refused.send(b"x").unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(10), channel.recv()).await;
        assert!(matches!(heard, Ok(Received::Connected)), "{heard:?}");
    }

    fn ready() -> FromGuest {
        FromGuest::Ready { version: "1".into() }
    }

    proptest::proptest! {
        #[test]
        fn all_complete_lines_of_any_input_are_taken(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let mut unread = bytes.clone();
            let mut lines = 0;
            while next_line(&mut unread).is_some() {
                lines += 1;
            }
            proptest::prop_assert_eq!(lines, bytes.iter().filter(|byte| **byte == b'\n').count());
            proptest::prop_assert!(!unread.contains(&b'\n'));
        }
    }
}
