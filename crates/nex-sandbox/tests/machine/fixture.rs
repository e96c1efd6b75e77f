//! A provider on a real monitor with a network of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nex_erofs::{Kind, Meta, Options, Source, Tree};
use nex_network::{Network, NetworkConfig, NetworkKind, Policy};
use nex_process::{ChildSpec, Deadline};
use nex_protocol::guest::GuestLimits;
use nex_sandbox::MachineSize;
use nex_sandbox::microvm::{MicroVmConfig, MicroVmProvider};
use nex_vmm::{Accel, Firecracker, Jailer, MachineSpec, Qemu, RateLimiter, TokenBucket, Vmm, VmmKind};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

pub(crate) const UID_BASE: u32 = 1_812_000;
pub(crate) const RATE: u64 = 1 << 20;

pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// A provider and its parts.
pub(crate) struct Fixture {
    pub(crate) provider: MicroVmProvider,
    pub(crate) vmm: Arc<dyn Vmm>,
    kernel: PathBuf,
    owner: String,
    dir: tempfile::TempDir,
}

impl Fixture {
    /// A guest without an agent under a jailed Firecracker; the error says what is missing.
    pub(crate) async fn open(name: &str) -> Result<Self, String> {
        Self::with(name, firecracker()?, |dir| {
            let file = dir.join("file");
            fs::write(&file, "no agent").unwrap();
            nex_erofs::drive(&file, &dir.join("root.img")).unwrap();
        })
        .await
    }

    /// A guest whose init is hostile in that manner, under that monitor.
    pub(crate) async fn hostile(name: &str, monitor: VmmKind, manner: &str) -> Result<Self, String> {
        let vmm = match monitor {
            VmmKind::Firecracker => firecracker()?,
            VmmKind::Qemu => {
                let binary = program("NEX_QEMU", "qemu-system-x86_64").ok_or("no qemu-system-x86_64")?;
                // The lab's KVM runs guests; nested emulation would be too slow.
                let accel = if std::env::var_os("NEX_LAB").is_some() { Accel::Kvm } else { Accel::Tcg };
                Arc::new(Qemu::new(binary, accel))
            }
        };
        Self::with(name, vmm, |dir| {
            let init = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/hostile-init");
            let mut tree = Tree::new(Meta::root(0o755));
            tree.put("dev", Meta::root(0o755), Kind::Directory).unwrap();
            tree.put("manner", Meta::root(0o444), Kind::File(Source::Bytes(manner.as_bytes().into()))).unwrap();
            tree.put("nex-agent", Meta::root(0o555), Kind::File(Source::Path(init))).unwrap();
            tree.write(&mut fs::File::create_new(dir.join("root.img")).unwrap(), &Options::default()).unwrap();
        })
        .await
    }

    async fn with(name: &str, vmm: Arc<dyn Vmm>, make_root: impl FnOnce(&Path)) -> Result<Self, String> {
        let kernel = std::env::var_os("NEX_KERNEL").map(PathBuf::from).filter(|kernel| kernel.is_file());
        let kernel = kernel.ok_or("NEX_KERNEL names no guest kernel")?;
        if !nix::unistd::geteuid().is_root() {
            return Err("not root".to_owned());
        }
        if let Some(lack) = nex_network::check(&NetworkKind::Builtin).first() {
            return Err(format!("no {} for the network", lack.what));
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        make_root(dir.path());
        let owner = format!("{name}{}", std::process::id() % 1_000_000);
        let network = NetworkConfig {
            kind: NetworkKind::Builtin,
            owner: owner.clone(),
            state_dir: dir.path().join("network"),
            subnet: None,
            gateway: None,
            policy: Policy::default(),
            limits: None,
        };
        let network = Network::open(network, Deadline::after(WITHIN)).await.map_err(|error| error.to_string())?;
        let bucket = TokenBucket { size: RATE, refill_time_ms: 100, one_time_burst: None };
        let config = MicroVmConfig {
            node: owner.clone(),
            state_dir: dir.path().join("state"),
            uid_base: UID_BASE,
            kernel: kernel.clone(),
            rootfs: dir.path().join("root.img"),
            size: MachineSize { vcpus: 1, memory_mib: 128 },
            limits: GuestLimits { uid: 1000, processes: 64, open_files: 64, file_bytes: 1 << 20, tmp_bytes: 1 << 20 },
            rates: (vmm.kind() == VmmKind::Firecracker).then_some(RateLimiter { bandwidth: Some(bucket), ops: None }),
            dns: Vec::new(),
            snapshots: false,
        };
        let provider = MicroVmProvider::open(config, Arc::clone(&vmm), network).unwrap();
        Ok(Self { provider, vmm, kernel, owner, dir })
    }

    /// The directory of a sandbox.
    pub(crate) fn agent(&self, id: &str) -> PathBuf {
        self.dir.path().join("state/agents").join(id)
    }

    /// A machine that does not belong to the provider.
    pub(crate) fn machine(&self, id: &str, dir: PathBuf, uid: u32) -> MachineSpec {
        MachineSpec {
            id: id.to_owned(),
            dir,
            vcpus: 1,
            memory_mib: 128,
            kernel: self.kernel.clone(),
            boot_args: "quiet".to_owned(),
            root: self.dir.path().join("root.img"),
            drives: Vec::new(),
            drive_limiter: None,
            nic: None,
            netns: None,
            run_as: Some(uid),
            balloon: false,
            metadata: false,
            console: Arc::new(|_: &str| {}),
        }
    }

    /// Whether the host has this network device.
    pub(crate) fn has_device(&self, name: &str) -> bool {
        Path::new("/sys/class/net").join(name).exists()
    }

    /// Number of this fixture's guest devices.
    pub(crate) fn taps(&self) -> usize {
        let prefix = format!("nex:{}:", self.owner);
        let alias = |link: &fs::DirEntry| fs::read_to_string(link.path().join("ifalias")).unwrap_or_default();
        fs::read_dir("/sys/class/net").unwrap().flatten().filter(|link| alias(link).starts_with(&prefix)).count()
    }

    /// Closes the provider and checks that nothing is left.
    pub(crate) async fn close(self) {
        self.provider.close(WITHIN).await;
        let left: Vec<_> = fs::read_dir(self.dir.path().join("state/agents")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        let ours = |link: &fs::DirEntry| {
            fs::read_to_string(link.path().join("ifalias")).is_ok_and(|alias| alias.starts_with(&format!("nex:{}", self.owner)))
        };
        let devices: Vec<_> = fs::read_dir("/sys/class/net").unwrap().flatten().filter(ours).collect();
        assert!(devices.is_empty(), "{devices:?}");
        if let Some(nft) = program("NEX_NFT", "nft").or_else(|| Some("/usr/sbin/nft".into())) {
            let table = format!("nex_{}", self.owner);
            let listed = ChildSpec::new(nft).args(["list", "table", "inet", &table]).spawn().unwrap();
            assert!(!listed.exited().await.is_success(), "the table {table} is gone");
        }
    }
}

/// Firecracker in its jail.
fn firecracker() -> Result<Arc<dyn Vmm>, String> {
    let firecracker = program("NEX_FIRECRACKER", "firecracker").ok_or("no firecracker")?;
    let jailer = program("NEX_JAILER", "jailer").ok_or("no jailer")?;
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Err("no /dev/kvm".to_owned());
    }
    Ok(Arc::new(Firecracker::new(firecracker, Some(Jailer { binary: jailer }))))
}

/// A program, by a variable or on the path.
fn program(variable: &str, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = || std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    std::env::var_os(variable).map(PathBuf::from).or_else(found)
}

/// Sends a GET request to a jailed monitor.
pub(crate) async fn ask(jail: &Path, path: &str) -> Value {
    let mut stream = UnixStream::connect(jail.join("api.sock")).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Ok(value) = serde_json::from_str(body)
        {
            return value;
        }
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{text}");
    }
}
