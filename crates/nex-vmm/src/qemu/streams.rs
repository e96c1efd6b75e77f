//! The streams between the node and QEMU: the guest's channel, and anonymous pairs for commands and migrations.

use std::os::fd::OwnedFd;

use crate::error::VmmError;
use crate::spec::MachineSpec;

/// Name of the socket of the channel.
pub(super) const CHANNEL: &str = "nex.sock";

/// A connected pair: the node's end, and QEMU's.
pub(super) fn stream_pair(spec: &MachineSpec) -> Result<(tokio::net::UnixStream, OwnedFd), VmmError> {
    let pair = || {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok::<_, std::io::Error>((tokio::net::UnixStream::from_std(ours)?, theirs.into()))
    };
    pair().map_err(VmmError::file("make a stream for", &spec.dir))
}
