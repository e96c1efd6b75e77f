//! A machine of the tests: real QEMU without acceleration, a real kernel, an image with this build's agent, and the stream to its init.

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

use crate::kit::{Kit, PATIENCE, Shape};

/// A running machine.
pub(crate) struct Machine {
    dir: TempDir,
    qemu: Child,
    stream: BufReader<UnixStream>,
    /// From QEMU's start to the guest's first word.
    pub(crate) took: Duration,
}

impl Machine {
    /// Boots one; returns when the init has said that it is ready.
    pub(crate) async fn boot(kit: &Kit, shape: &Shape) -> Self {
        let dir = tempfile::Builder::new().prefix("nex-guest-").tempdir().unwrap();
        kit.image(&dir.path().join("root.img"));
        fs::write(dir.path().join("slot0.img"), [0; 4096]).unwrap();
        let mut machine = Self::start(kit, shape, dir).await;
        let began = Instant::now();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        assert_eq!(machine.hear().await, FromGuest::Ready { version });
        machine.took = began.elapsed();
        machine
    }

    /// Starts QEMU in a directory with the images.
    async fn start(kit: &Kit, shape: &Shape, dir: TempDir) -> Self {
        let qemu = ChildSpec::new(&kit.qemu).args(kit.arguments(shape)).current_dir(dir.path()).spawn().unwrap();
        let stream = BufReader::new(connect(&dir.path().join("channel.sock")).await);
        Self { dir, qemu, stream, took: Duration::ZERO }
    }

    /// Stops it where it is; clones can be made of what it leaves.
    pub(crate) async fn freeze(&self) {
        let mut monitor = self.monitor().await;
        command(&mut monitor, "migrate-set-capabilities", shared_memory()).await;
        command(&mut monitor, "stop", json!({})).await;
        command(&mut monitor, "migrate", json!({ "uri": "exec:cat > state" })).await;
        until(&mut monitor, "query-migrate", "completed").await;
    }

    /// Wakes up another one where a frozen one was stopped.
    pub(crate) async fn clone_of(kit: &Kit, frozen: &Self, shape: &Shape) -> Self {
        let dir = tempfile::Builder::new().prefix("nex-guest-").tempdir().unwrap();
        for name in ["root.img", "slot0.img", "ram", "state"] {
            std::os::unix::fs::symlink(frozen.path(name), dir.path().join(name)).unwrap();
        }
        let machine = Self::start(kit, &Shape { clone: true, ..shape.clone() }, dir).await;
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

    pub(crate) async fn say(&mut self, what: &ToGuest) {
        let mut line = serde_json::to_vec(what).unwrap();
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> FromGuest {
        let mut line = String::new();
        let heard = tokio::time::timeout(PATIENCE, self.stream.read_line(&mut line)).await;
        assert!(matches!(heard, Ok(Ok(1..))), "nothing heard ({heard:?}); the console says:\n{}", self.console());
        serde_json::from_str(&line).unwrap()
    }

    /// Loses the stream, as a restore does, and takes it up again once the guest has noticed.
    pub(crate) async fn reconnect(&mut self) {
        let mut monitor = self.monitor().await;
        let other = UnixStream::pair().unwrap().0;
        drop(std::mem::replace(&mut self.stream, BufReader::new(other)));
        loop {
            let mut line = String::new();
            tokio::time::timeout(PATIENCE, monitor.read_line(&mut line)).await.expect("the guest notices").unwrap();
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
        self.say(&ToGuest::Attach { slot: 0 }).await;
        match self.hear().await {
            FromGuest::Attached { slot: 0, path } => path,
            other => panic!("{other:?}; the console says:\n{}", self.console()),
        }
    }

    /// Has QEMU read the first slot's drive from another file.
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

    /// Waits until QEMU has ended by itself.
    pub(crate) async fn gone(&self) -> Exit {
        let gone = Deadline::after(PATIENCE).bound(self.qemu.exited()).await;
        gone.unwrap_or_else(|_elapsed| panic!("the machine does not go down; its console says:\n{}", self.console()))
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
    let end = Instant::now() + PATIENCE;
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
    let connected = eventually(PATIENCE, || async {
        let made = UnixStream::connect(socket).await.ok();
        stream.replace(made);
        stream.borrow().is_some()
    });
    assert!(connected.await, "QEMU has no socket {}", socket.display());
    stream.take().unwrap()
}
