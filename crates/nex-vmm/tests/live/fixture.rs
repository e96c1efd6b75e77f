//! A guest for the tests: a kernel from outside, and a root image of busybox and one script.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nex_process::{ChildSpec, Deadline};
use nex_vmm::{Machine, MachineSpec};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

pub(crate) fn by(seconds: u64) -> Deadline {
    Deadline::after(Duration::from_secs(seconds))
}

/// A program, by a variable or on the path.
pub(crate) fn program(variable: &str, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = || std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    std::env::var_os(variable).map(PathBuf::from).or_else(found)
}

/// A kernel, a root image and a directory for the machines of one test; removed when dropped.
pub(crate) struct Fixture {
    dir: tempfile::TempDir,
    kernel: PathBuf,
    console: Arc<Mutex<Vec<String>>>,
}

impl Fixture {
    /// The error says what is missing.
    pub(crate) async fn open() -> Result<Self, &'static str> {
        let kernel = std::env::var_os("NEX_KERNEL").map(PathBuf::from).filter(|kernel| kernel.is_file());
        let kernel = kernel.ok_or("NEX_KERNEL names no guest kernel")?;
        let busybox = program("NEX_BUSYBOX", "busybox").ok_or("no busybox")?;
        let mkfs = program("NEX_MKFS_EROFS", "mkfs.erofs").ok_or("no mkfs.erofs")?;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        for name in ["bin", "dev", "proc", "sys"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
        let init = root.join("init");
        std::fs::write(&init, include_str!("init")).unwrap();
        std::fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let made = ChildSpec::new(mkfs).args([dir.path().join("root.erofs"), root]).spawn().unwrap();
        assert!(made.exited().await.is_success());
        // Monitors of other users must be able to traverse it.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        Ok(Self { dir, kernel, console: Arc::default() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A drive's image of that many blocks of 4096 bytes.
    pub(crate) fn image(&self, name: &str, blocks: usize) -> PathBuf {
        let path = self.path(name);
        let block: Vec<u8> = name.bytes().cycle().take(4096).collect();
        std::fs::write(&path, block.repeat(blocks)).unwrap();
        path
    }

    /// A machine of its own with one drive.
    pub(crate) fn spec(&self, id: &str) -> MachineSpec {
        let dir = self.path(id);
        std::fs::create_dir(&dir).unwrap();
        let console = Arc::clone(&self.console);
        MachineSpec {
            id: id.to_owned(),
            dir,
            vcpus: 1,
            memory_mib: 128,
            kernel: self.kernel.clone(),
            boot_args: "rootfstype=erofs init=/init quiet loglevel=1".to_owned(),
            root: self.path("root.erofs"),
            drives: vec![self.image("placeholder", 1)],
            drive_limiter: None,
            nic: None,
            netns: None,
            run_as: None,
            balloon: false,
            metadata: false,
            console: Arc::new(move |line: &str| console.lock().unwrap().push(line.to_owned())),
        }
    }

    /// What all machines have written.
    pub(crate) fn console(&self) -> Vec<String> {
        self.console.lock().unwrap().clone()
    }
}

/// The channel of a guest.
pub(crate) struct Guest(BufReader<UnixStream>);

impl Guest {
    pub(crate) async fn connect(machine: &dyn Machine) -> Self {
        Self(BufReader::new(machine.channel(by(10)).await.unwrap()))
    }

    pub(crate) async fn send(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    pub(crate) async fn recv(&mut self) -> String {
        let mut line = String::new();
        by(60).bound(self.0.read_line(&mut line)).await.expect("the guest answers in time").unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) async fn ask(&mut self, line: &str) -> String {
        self.send(line).await;
        self.recv().await
    }
}

/// Size and digest of a file, in the format in which the guest reports a drive.
pub(crate) async fn size_and_digest(image: &Path) -> String {
    let seen: Arc<Mutex<String>> = Arc::default();
    let sink = Arc::clone(&seen);
    let sum = ChildSpec::new("/usr/bin/sha256sum").args([image]);
    let sum = sum.stdout(nex_process::Output::Lines(Arc::new(move |line: &str| sink.lock().unwrap().push_str(line)))).spawn();
    assert!(sum.unwrap().exited().await.is_success());
    let digest = seen.lock().unwrap().get(..64).unwrap().to_owned();
    format!("{} {digest}", std::fs::metadata(image).unwrap().len())
}

/// A network namespace with a tap `tap0` in it, removed with it.
pub(crate) struct Netns(String);

impl Netns {
    /// `None` where the host does not allow it.
    pub(crate) async fn with_tap(name: &str) -> Option<Self> {
        let name = format!("{name}{}", std::process::id());
        if !nix::unistd::geteuid().is_root() || !ip(&["netns", "add", &name]).await {
            return None;
        }
        let netns = Self(name);
        let tap = ["-n", &netns.0, "tuntap", "add", "tap0", "mode", "tap", "user", "65534", "vnet_hdr"];
        ip(&tap).await.then_some(netns)
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // What `ip netns del` does; it cannot be awaited here.
        let path = self.path();
        let _gone = nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH);
        let _gone = std::fs::remove_file(path);
    }
}

async fn ip(args: &[&str]) -> bool {
    let Some(ip) = program("NEX_IP", "ip") else { return false };
    match ChildSpec::new(ip).args(args).spawn() {
        Ok(child) => child.exited().await.is_success(),
        Err(_) => false,
    }
}
