//! A netlink socket: one request at a time, each with its answer.
//!
//! It blocks, because much of the work is done by short-lived threads inside other network namespaces: a socket belongs to the
//! namespace in which it was opened.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::message::{Message, Reply, i32_at, messages};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The kernel answers at once; a lost answer must not block the thread for ever.
const TIMEOUT_S: i64 = 20;
/// The kernel's datagrams are at most 32 KiB.
const DATAGRAM: usize = 64 << 10;

/// A socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(TIMEOUT_S))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// Sends a request and returns all messages of its answer.
    pub(crate) fn request(&mut self, message: Message) -> io::Result<Vec<Reply>> {
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
                // A late answer to an earlier request that timed out.
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

    /// Sends a request that is only acknowledged.
    pub(crate) fn request_ack(&mut self, message: Message) -> io::Result<()> {
        self.request(message).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use crate::{LinkChange, Netlink};

    #[test]
    fn a_refusal_of_the_kernel_is_an_error() {
        let mut netlink = Netlink::open().unwrap();
        let up = LinkChange { up: true, ..LinkChange::default() };
        let error = netlink.change_link(i32::MAX, up).unwrap_err();
        // Root learns that there is no such link, other users that they may not change it.
        assert!(matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EPERM)), "{error}");
    }
}
