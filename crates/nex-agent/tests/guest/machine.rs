//! A machine of the tests: real QEMU (emulating, but in the lab), a real kernel, an image with this build's agent, the stream to its init.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nex_process::{Child, ChildSpec, Deadline, Exit};
use nex_protocol::guest::{FromGuest, ToGuest};
use nex_testkit::eventually;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::fixture::{Fixture, MachineOptions, TIMEOUT};

/// A running machine.
pub(crate) struct Machine {
    dir: TempDir,
    qemu: Child,
    stream: BufReader<UnixStream>,
    /// From QEMU's start to the guest's first message.
    pub(crate) boot_time: Duration,
}

impl Machine {
    /// Boots one; returns when the init has said that it is ready.
    pub(crate) async fn boot(fixture: &Fixture, options: &MachineOptions) -> Self {
        let dir = tempfile::Builder::new().prefix("nex-guest-").tempdir().unwrap();
        fixture.image(&dir.path().join("root.img"));
        fs::write(dir.path().join("slot0.img"), [0; 4096]).unwrap();
        let mut machine = Self::start(fixture, options, dir).await;
        let began = Instant::now();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        assert_eq!(machine.recv().await, FromGuest::Ready { version });
        machine.boot_time = began.elapsed();
        machine
    }

    /// Starts QEMU in a directory with the images.
    async fn start(fixture: &Fixture, options: &MachineOptions, dir: TempDir) -> Self {
        let qemu = ChildSpec::new(&fixture.qemu).args(fixture.arguments(options)).current_dir(dir.path()).spawn().unwrap();
        let stream = BufReader::new(connect(&dir.path().join("channel.sock")).await);
        Self { dir, qemu, stream, boot_time: Duration::ZERO }
    }

    /// Writes a snapshot, from which clones can be made.
    pub(crate) async fn snapshot(&self) {
        let mut monitor = self.monitor().await;
        command(&mut monitor, "migrate-set-capabilities", shared_memory()).await;
        command(&mut monitor, "stop", json!({})).await;
        command(&mut monitor, "migrate", json!({ "uri": "exec:cat > state" })).await;
        until(&mut monitor, "query-migrate", "completed").await;
    }

    /// Restores another machine from a snapshot.
    pub(crate) async fn clone_of(fixture: &Fixture, template: &Self, options: &MachineOptions) -> Self {
        let dir = tempfile::Builder::new().prefix("nex-guest-").tempdir().unwrap();
        for name in ["root.img", "slot0.img", "ram", "state"] {
            std::os::unix::fs::symlink(template.path(name), dir.path().join(name)).unwrap();
        }
        let machine = Self::start(fixture, &MachineOptions { clone: true, ..options.clone() }, dir).await;
        let mut monitor = machine.monitor().await;
        command(&mut monitor, "migrate-set-capabilities", shared_memory()).await;
        command(&mut monitor, "migrate-incoming", json!({ "uri": "exec:cat state" })).await;
        until(&mut monitor, "query-status", "paused").await;
        command(&mut monitor, "cont", json!({})).await;
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("console.log")).unwrap_or_default()).into_owned()
    }

    pub(crate) async fn send(&mut self, message: &ToGuest) {
        let mut line = serde_json::to_vec(message).unwrap();
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).await.unwrap();
    }

    pub(crate) async fn recv(&mut self) -> FromGuest {
        let mut line = String::new();
        let read = tokio::time::timeout(TIMEOUT, self.stream.read_line(&mut line)).await;
        assert!(matches!(read, Ok(Ok(1..))), "no message ({read:?}); the console:\n{}", self.console());
        serde_json::from_str(&line).unwrap()
    }

    /// Gives the guest an identity and waits until it is applied.
    pub(crate) async fn identify(&mut self, identity: &ToGuest) {
        self.send(identity).await;
        assert_eq!(self.recv().await, FromGuest::Identified, "the console:\n{}", self.console());
    }

    /// Drops the stream, as a restore does, and reconnects once the guest has noticed.
    pub(crate) async fn reconnect(&mut self) {
        let mut monitor = self.monitor().await;
        let other = UnixStream::pair().unwrap().0;
        drop(std::mem::replace(&mut self.stream, BufReader::new(other)));
        loop {
            let mut line = String::new();
            tokio::time::timeout(TIMEOUT, monitor.read_line(&mut line)).await.expect("the guest notices").unwrap();
            let event: Value = serde_json::from_str(&line).unwrap();
            if event.get("event").is_some_and(|name| name == "VSERPORT_CHANGE") {
                break;
            }
        }
        self.stream = BufReader::new(connect(&self.path("channel.sock")).await);
    }

    /// Puts a file into the first slot's drive and has the guest mount it.
    pub(crate) async fn attach(&mut self, artifact: &[u8]) -> String {
        fs::write(self.path("file"), artifact).unwrap();
        nex_erofs::drive(&self.path("file"), &self.path("artifact.img")).unwrap();
        self.swap("artifact.img").await;
        self.send(&ToGuest::Attach { slot: 0 }).await;
        match self.recv().await {
            FromGuest::Attached { slot: 0, path } => path,
            other => panic!("{other:?}; the console:\n{}", self.console()),
        }
    }

    /// Replaces the image of the first slot.
    pub(crate) async fn swap(&self, file: &str) {
        let mut monitor = self.monitor().await;
        let new = json!({ "driver": "file", "node-name": "new", "filename": file, "read-only": true });
        let slot = json!({ "driver": "raw", "node-name": "slot0", "read-only": true, "file": "new" });
        command(&mut monitor, "blockdev-add", new).await;
        command(&mut monitor, "blockdev-reopen", json!({ "options": [slot] })).await;
    }

    async fn monitor(&self) -> BufReader<UnixStream> {
        let mut monitor = BufReader::new(connect(&self.path("qmp.sock")).await);
        monitor.read_line(&mut String::new()).await.unwrap();
        command(&mut monitor, "qmp_capabilities", json!({})).await;
        monitor
    }

    /// Waits until QEMU has exited by itself.
    pub(crate) async fn exited(&self) -> Exit {
        let exit = Deadline::after(TIMEOUT).bound(self.qemu.exited()).await;
        exit.unwrap_or_else(|_elapsed| panic!("the machine does not go down; its console says:\n{}", self.console()))
    }
}

async fn command(monitor: &mut BufReader<UnixStream>, name: &str, arguments: Value) -> Value {
    let command = json!({ "execute": name, "arguments": arguments });
    monitor.get_mut().write_all(format!("{command}\n").as_bytes()).await.unwrap();
    loop {
        let mut line = String::new();
        monitor.read_line(&mut line).await.unwrap();
        let mut answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        if let Some(returned) = answer.get_mut("return") {
            return returned.take();
        }
    }
}

async fn until(monitor: &mut BufReader<UnixStream>, query: &str, status: &str) {
    let end = Instant::now() + TIMEOUT;
    while command(monitor, query, json!({})).await.get("status").is_none_or(|it| it != status) {
        assert!(Instant::now() < end, "{query} does not become {status}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn shared_memory() -> Value {
    json!({ "capabilities": [{ "capability": "x-ignore-shared", "state": true }] })
}

async fn connect(socket: &Path) -> UnixStream {
    let stream = RefCell::new(None);
    let connected = eventually(TIMEOUT, || async {
        let made = UnixStream::connect(socket).await.ok();
        stream.replace(made);
        stream.borrow().is_some()
    });
    assert!(connected.await, "QEMU has no socket {}", socket.display());
    stream.take().unwrap()
}
