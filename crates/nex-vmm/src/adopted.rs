//! A machine that another process started and has left running: the channel to its guest, and its end.
//!
//! QEMU's command stream ended with that process, and what Firecracker was told is known to nobody, so both are left alone: a machine whose
//! workload runs needs no command.

use std::path::Path;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_process::{Deadline, Exit, ProcessId};
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};

use crate::error::VmmError;
use crate::files::Files;
use crate::machine::{Machine, Snapshot};
use crate::process::Process;
use crate::spec::RateLimiter;

/// How a stream from the guest is had.
#[derive(Debug)]
pub(crate) enum Channel {
    /// The monitor listens on the socket of this name.
    Connect(&'static str),
    /// The monitor connects the guest to this socket.
    Accept(UnixListener),
}

/// A monitor's process, and the channel to its guest.
#[derive(Debug)]
pub(crate) struct AdoptedMachine {
    process: Process,
    files: Files,
    channel: Channel,
}

impl AdoptedMachine {
    pub(crate) fn new(process: Process, files: Files, channel: Channel) -> Self {
        Self { process, files, channel }
    }

    async fn connect(&self, by: Deadline) -> Result<UnixStream, VmmError> {
        let connect = async {
            match &self.channel {
                Channel::Connect(name) => self.files.connect(name).await.map_err(VmmError::file("connect to", name.as_ref())),
                Channel::Accept(listener) => {
                    let accepted = listener.accept().await.map(|(stream, _nameless)| stream);
                    accepted.map_err(VmmError::file("accept on", &self.files.path("")))
                }
            }
        };
        self.process.during(by, "connect to the guest", connect).await
    }

    fn refuse<'a, T: Send + 'a>(&self) -> BoxFuture<'a, Result<T, VmmError>> {
        let what = "take commands from another process than the one that started it";
        std::future::ready(Err(VmmError::Unsupported { vmm: self.process.vmm(), what })).boxed()
    }
}

impl Machine for AdoptedMachine {
    fn process(&self) -> ProcessId {
        self.process.id()
    }

    fn channel(&self, by: Deadline) -> BoxFuture<'_, Result<UnixStream, VmmError>> {
        self.connect(by).boxed()
    }

    fn set_metadata<'a>(&'a self, _value: &'a Value, _by: Deadline) -> BoxFuture<'a, Result<(), VmmError>> {
        self.refuse()
    }

    fn swap_drive<'a>(&'a self, _slot: usize, _image: &'a Path, _by: Deadline) -> BoxFuture<'a, Result<(), VmmError>> {
        self.refuse()
    }

    fn set_balloon(&self, _mib: u32, _by: Deadline) -> BoxFuture<'_, Result<(), VmmError>> {
        self.refuse()
    }

    fn limit_network(&self, _rx: RateLimiter, _tx: RateLimiter, _by: Deadline) -> BoxFuture<'_, Result<(), VmmError>> {
        self.refuse()
    }

    fn snapshot<'a>(&'a self, _into: &'a Path, _by: Deadline) -> BoxFuture<'a, Result<Snapshot, VmmError>> {
        self.refuse()
    }

    fn press_power(&self, _by: Deadline) -> BoxFuture<'_, Result<(), VmmError>> {
        self.refuse()
    }

    fn exited(&self) -> BoxFuture<'_, Exit> {
        self.process.exited().boxed()
    }

    fn kill(&self) -> BoxFuture<'_, Exit> {
        self.process.kill().boxed()
    }
}
