//! Talks to the kernel about devices, addresses, routes and queues: a blocking netlink socket, for threads that may block.
//!
//! Blocking because half of the work is done inside guests' namespaces, by threads that live as long as one task; a socket
//! belongs to the namespace in which it was opened.

mod link;
mod message;
mod route;
mod tc;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

pub(crate) use link::{Change, Link, Peer};
pub(crate) use route::Route;

use message::{Message, Reply, i32_at, messages};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

/// The kernel answers at once; a lost answer must not hang the thread.
const TIMEOUT_S: i64 = 20;
/// The kernel's datagrams are at most 32 KiB.
const DATAGRAM: usize = 64 << 10;

/// A socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(TIMEOUT_S))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// Sends a request and waits for its end: the messages of the answer.
    fn ask(&mut self, message: Message) -> io::Result<Vec<Reply>> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.finish(self.sequence);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut answer = Vec::new();
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(nix::errno::Errno::EINTR) => continue,
                length => length?,
            };
            for (sequence, reply) in messages(self.buffer.get(..length).unwrap_or_default()) {
                // An answer to an earlier question that ran out of time.
                if sequence != self.sequence {
                    continue;
                }
                match (reply.kind, i32_at(&reply.body, 0)) {
                    (NLMSG_ERROR, Some(0)) | (NLMSG_DONE, _) => return Ok(answer),
                    (NLMSG_ERROR, Some(code)) => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
                    (NLMSG_ERROR, None) => return Err(io::ErrorKind::InvalidData.into()),
                    _ => answer.push(reply),
                }
            }
        }
    }

    /// Sends a request that is answered by yes or no.
    fn tell(&mut self, message: Message) -> io::Result<()> {
        self.ask(message).map(drop)
    }
}

/// Reads a datagram as every kind of answer, for `fuzz/`.
pub(crate) fn read_all(datagram: &[u8]) {
    for (_, reply) in messages(datagram) {
        drop((link::link(&reply.body), route::address(&reply.body), route::route(&reply.body)));
    }
}

/// A request that changes something.
fn change(kind: u16, flags: u16) -> Message {
    Message::new(kind, NLM_F_REQUEST | NLM_F_ACK | flags)
}

/// A request for everything of a kind.
fn dump(kind: u16) -> Message {
    Message::new(kind, NLM_F_REQUEST | NLM_F_DUMP)
}
