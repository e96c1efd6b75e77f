//! A machine of the tests: real QEMU without acceleration, a real kernel, an image with this build's agent, and the stream to its init.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nex_erofs::{Kind, Meta, Options, Source, Tree};
use nex_process::{Child, ChildSpec, Deadline, Exit};
use nex_protocol::guest::{FromGuest, GuestLimits, GuestNetwork, ToGuest, Welcome};
use nex_testkit::eventually;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// Longest time for anything here: machines are slow without acceleration, more so beside others.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The agent's uid in a guest.
pub(crate) const UID: u32 = 61_234;

const QEMU: &str = "qemu-system-x86_64";
/// Where SLIRP has its machine and its host.
const ADDRESS: &str = "10.0.2.15";
pub(crate) const HOST: &str = "10.0.2.2";

/// What machines are made of; `Err` says what is missing here.
pub(crate) struct Kit {
    kernel: PathBuf,
    qemu: PathBuf,
    pub(crate) busybox: Option<PathBuf>,
}

impl Kit {
    pub(crate) fn find() -> Result<Self, String> {
        let kernel = std::env::var_os("NEX_KERNEL").map(PathBuf::from);
        let kernel = kernel.filter(|it| it.is_file()).ok_or("no guest kernel: NEX_KERNEL names none")?;
        let kernel = fs::canonicalize(kernel).map_err(|error| error.to_string())?;
        Ok(Self { kernel, qemu: on_path(QEMU).ok_or("no QEMU")?, busybox: on_path("busybox") })
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A running machine.
pub(crate) struct Machine {
    dir: TempDir,
    qemu: Child,
    stream: BufReader<UnixStream>,
    /// From QEMU's start to the guest's first word.
    pub(crate) took: Duration,
}

impl Machine {
    /// Boots one with so much memory (MiB); returns when the init has said that it is ready.
    pub(crate) async fn boot(kit: &Kit, memory: u32) -> Self {
        let dir = tempfile::Builder::new().prefix("nex-guest-").tempdir().unwrap();
        image(kit, &dir.path().join("root.img"));
        fs::write(dir.path().join("slot0.img"), [0; 4096]).unwrap();
        let began = Instant::now();
        let qemu = ChildSpec::new(&kit.qemu).args(arguments(kit, memory)).current_dir(dir.path()).spawn().unwrap();
        let stream = BufReader::new(connect(&dir.path().join("channel.sock")).await);
        let mut machine = Self { dir, qemu, stream, took: Duration::ZERO };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        assert_eq!(machine.hear().await, FromGuest::Ready { version });
        machine.took = began.elapsed();
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

async fn command(monitor: &mut BufReader<UnixStream>, name: &str, arguments: Value) {
    let command = json!({ "execute": name, "arguments": arguments });
    monitor.get_mut().write_all(format!("{command}\n").as_bytes()).await.unwrap();
    loop {
        let mut line = String::new();
        monitor.read_line(&mut line).await.unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        if answer.get("return").is_some() {
            return;
        }
    }
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

fn arguments(kit: &Kit, memory: u32) -> Vec<String> {
    let kernel = kit.kernel.to_str().unwrap();
    let boot = "console=hvc0 quiet loglevel=4 reboot=t panic=-1 tsc=reliable no_timer_check \
        root=/dev/vda ro rootfstype=erofs init=/nex-agent";
    let line = format!(
        "-M microvm,acpi=off,pit=on,pic=on,rtc=on,isa-serial=off -accel tcg,tb-size=32 -cpu max -m {memory} \
         -nodefaults -no-user-config -display none -no-reboot -kernel {kernel} \
         -qmp unix:qmp.sock,server=on,wait=off -device virtio-serial-device \
         -chardev file,id=console,path=console.log -device virtconsole,chardev=console \
         -chardev socket,id=channel,path=channel.sock,server=on,wait=off -device virtserialport,id=port,chardev=channel,name=nex \
         -drive id=root,file=root.img,format=raw,if=none,readonly=on -device virtio-blk-device,drive=root \
         -blockdev driver=raw,node-name=slot0,read-only=on,file.driver=file,file.filename=slot0.img \
         -device virtio-blk-device,drive=slot0 \
         -netdev user,id=net,ipv6=off -device virtio-net-device,netdev=net,mac=52:54:00:00:00:01"
    );
    let mut arguments: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
    arguments.extend(["-append".to_owned(), boot.to_owned()]);
    arguments
}

/// The smallest root that there is, with a shell where there is one.
fn image(kit: &Kit, path: &Path) {
    let mut tree = Tree::new(Meta::root(0o755));
    for dir in ["proc", "run"] {
        tree.put(dir, Meta::root(0o755), Kind::Directory).unwrap();
    }
    tree.put("dev/console", Meta::root(0o600), Kind::CharDevice { major: 5, minor: 1 }).unwrap();
    tree.put("dev/null", Meta::root(0o666), Kind::CharDevice { major: 1, minor: 3 }).unwrap();
    let program = |path: &Path| Kind::File(Source::Path(path.to_owned()));
    tree.put("nex-agent", Meta::root(0o555), program(Path::new(env!("CARGO_BIN_EXE_nex-agent")))).unwrap();
    if let Some(busybox) = &kit.busybox {
        tree.put("bin/busybox", Meta::root(0o4755), program(busybox)).unwrap();
        tree.put("bin/sh", Meta::root(0o777), Kind::Symlink(b"busybox".to_vec())).unwrap();
    }
    tree.write(&mut File::create_new(path).unwrap(), &Options::default()).unwrap();
}

/// A welcome with a network by which the guest reaches this host, and the host's clock moved by some years.
pub(crate) fn welcome(identity: String, time: Duration) -> ToGuest {
    ToGuest::Welcome(Box::new(Welcome {
        identity,
        hostname: "vm-test".to_owned(),
        network: Some(GuestNetwork {
            mac: "52:54:00:ab:cd:ef".to_owned(),
            address: ADDRESS.parse().unwrap(),
            prefix: 24,
            gateway: HOST.parse().unwrap(),
            mtu: 1400,
            dns: Vec::new(),
        }),
        time_unix_nanos: u64::try_from(time.as_nanos()).unwrap(),
        entropy: data_encoding::BASE64.encode(&[42; 64]),
        limits: GuestLimits { uid: UID, processes: 256, open_files: 1024, file_bytes: 1 << 30, tmp_bytes: 16 << 20 },
    }))
}
