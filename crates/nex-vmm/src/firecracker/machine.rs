//! A running Firecracker.

use std::path::Path;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_process::{Deadline, Exit, ProcessId};
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};

use super::api;
use super::requests::{self, Request};
use crate::error::VmmError;
use crate::files::{self, Files};
use crate::kind::VmmKind;
use crate::machine::{Machine, Snapshot};
use crate::process::Process;
use crate::spec::{MachineSpec, RateLimiter};

/// A Firecracker process and its API.
#[derive(Debug)]
pub(super) struct FirecrackerMachine {
    process: Process,
    files: Files,
    /// Where the guest's connections to port 1024 arrive.
    listener: UnixListener,
    spec: MachineSpec,
}

impl FirecrackerMachine {
    pub(super) fn new(process: Process, files: Files, listener: UnixListener, spec: MachineSpec) -> Self {
        Self { process, files, listener, spec }
    }

    async fn ask(&self, doing: &'static str, request: Request, by: Deadline) -> Result<(), VmmError> {
        self.process.during(by, doing, api::send(&self.files, &request)).await
    }

    async fn accept(&self, by: Deadline) -> Result<UnixStream, VmmError> {
        let accept = async { self.listener.accept().await.map_err(VmmError::file("accept on", requests::CHANNEL.as_ref())) };
        self.process.during(by, "connect to the guest", accept).await.map(|(stream, _nameless)| stream)
    }

    async fn swap(&self, slot: usize, image: &Path, by: Deadline) -> Result<(), VmmError> {
        if slot >= self.spec.drives.len() {
            return Err(VmmError::Invalid(format!("it has no drive {slot}")));
        }
        self.files.place(image, &files::drive(slot)).await?;
        self.ask("replace a drive", requests::swap_drive(slot), by).await
    }

    async fn write(&self, into: &Path, by: Deadline) -> Result<Snapshot, VmmError> {
        for request in requests::snapshot() {
            self.ask("write a snapshot", request, by).await?;
        }
        let (memory, state) = (into.join("memory"), into.join("state"));
        self.files.take(requests::MEMORY, &memory).await?;
        self.files.take(requests::STATE, &state).await?;
        Ok(Snapshot::new(VmmKind::Firecracker, memory, state, &self.spec))
    }
}

impl Machine for FirecrackerMachine {
    fn process(&self) -> ProcessId {
        self.process.id()
    }

    fn channel(&self, by: Deadline) -> BoxFuture<'_, Result<UnixStream, VmmError>> {
        self.accept(by).boxed()
    }

    fn set_metadata<'a>(&'a self, value: &'a Value, by: Deadline) -> BoxFuture<'a, Result<(), VmmError>> {
        self.ask("set the metadata", requests::set_metadata(value), by).boxed()
    }

    fn swap_drive<'a>(&'a self, slot: usize, image: &'a Path, by: Deadline) -> BoxFuture<'a, Result<(), VmmError>> {
        self.swap(slot, image, by).boxed()
    }

    fn set_balloon(&self, mib: u32, by: Deadline) -> BoxFuture<'_, Result<(), VmmError>> {
        self.ask("set the balloon", requests::set_balloon(mib), by).boxed()
    }

    fn limit_network(&self, rx: RateLimiter, tx: RateLimiter, by: Deadline) -> BoxFuture<'_, Result<(), VmmError>> {
        self.ask("limit the network", requests::limit_network(&rx, &tx), by).boxed()
    }

    fn snapshot<'a>(&'a self, into: &'a Path, by: Deadline) -> BoxFuture<'a, Result<Snapshot, VmmError>> {
        self.write(into, by).boxed()
    }

    fn press_power(&self, by: Deadline) -> BoxFuture<'_, Result<(), VmmError>> {
        self.ask("press the power button", requests::press_power(), by).boxed()
    }

    fn exited(&self) -> BoxFuture<'_, Exit> {
        self.process.exited().boxed()
    }

    fn kill(&self) -> BoxFuture<'_, Exit> {
        self.process.kill().boxed()
    }
}
