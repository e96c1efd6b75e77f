//! The minimum that a machine costs: the same kernel, monitor and devices, and an init that powers off at once.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nex_erofs::{Kind, Meta, Options, Source, Tree};
use nex_network::{Attachment, Network, NetworkConfig, NetworkKind, Policy};
use nex_node::sandbox::{Accel, vmm_candidates};
use nex_process::Deadline;
use nex_testkit::dist_binary;
use nex_vmm::{Firecracker, MachineSpec, Nic, Qemu, Vmm, VmmKind};

use super::fixture::AgentFixture;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A kernel, a root image with one program in it, and a monitor.
pub(crate) struct Bare {
    vmm: Box<dyn Vmm>,
    kernel: PathBuf,
    root: PathBuf,
    drive: PathBuf,
    dir: PathBuf,
    network: Network,
    link: Attachment,
    size: nex_sandbox::MachineSize,
    boots: usize,
}

impl Bare {
    pub(crate) async fn prepare(fixture: &AgentFixture) -> Result<Self> {
        let dir = fixture.directory().join("bare");
        std::fs::create_dir(&dir)?;
        let (root, drive) = (dir.join("root.img"), dir.join("drive.img"));
        image(&root)?;
        std::fs::write(&drive, [0; 4096])?;
        let candidates = vmm_candidates(&fixture.config, &fixture.resources, &mut Vec::new());
        let candidate = candidates.into_iter().find(|it| it.accel.to_string() == fixture.accel());
        let chosen = candidate.context("the monitor is not available any more")?;
        let vmm: Box<dyn Vmm> = match (chosen.kind, chosen.accel) {
            (VmmKind::Firecracker, _) => Box::new(Firecracker::new(chosen.binary, None)),
            (VmmKind::Qemu, Accel::Kvm) => Box::new(Qemu::new(chosen.binary, nex_vmm::Accel::Kvm)),
            (VmmKind::Qemu, Accel::Emulation) => Box::new(Qemu::new(chosen.binary, nex_vmm::Accel::Tcg)),
        };
        let config = NetworkConfig {
            kind: NetworkKind::Builtin,
            owner: format!("bare{:08x}", std::process::id()),
            state_dir: dir.join("network"),
            subnet: None,
            gateway: None,
            policy: Policy::default(),
            limits: None,
        };
        let network = Network::open(config, Deadline::after(TIMEOUT)).await?;
        let link = network.attach("bare", None, Deadline::after(TIMEOUT)).await?;
        let (kernel, _) = nex_node::sandbox::resources(&fixture.config, &fixture.resources);
        Ok(Self { vmm, kernel, root, drive, dir, network, link, size: fixture.config.microvm.template, boots: 0 })
    }

    /// Boots a machine; returns the time from the start of the monitor to its exit.
    pub(crate) async fn boot(&mut self) -> Result<Duration> {
        self.boots += 1;
        let id = format!("bare-{}", self.boots);
        let dir = self.dir.join(&id);
        std::fs::create_dir(&dir)?;
        let spec = self.spec(id, &dir)?;
        let by = Deadline::after(TIMEOUT);
        let began = Instant::now();
        let machine = self.vmm.boot(spec, by).await?;
        let ended = by.bound(machine.exited()).await.context("the bare machine does not power off");
        let took = began.elapsed();
        ended?;
        drop(machine);
        std::fs::remove_dir_all(dir)?;
        Ok(took)
    }

    fn spec(&self, id: String, dir: &Path) -> Result<MachineSpec> {
        let mac = self.link.mac.try_into()?;
        Ok(MachineSpec {
            id,
            dir: dir.to_owned(),
            vcpus: self.size.vcpus,
            memory_mib: self.size.memory_mib,
            kernel: self.kernel.clone(),
            boot_args: "init=/init quiet loglevel=1".to_owned(),
            root: self.root.clone(),
            drives: vec![self.drive.clone()],
            drive_limiter: None,
            nic: Some(Nic { tap: self.link.tap.clone(), mac, rx: None, tx: None }),
            netns: None,
            run_as: None,
            balloon: false,
            metadata: self.vmm.kind() == VmmKind::Firecracker,
            console: Arc::new(|_line: &str| {}),
        })
    }

    pub(crate) async fn close(self) {
        self.network.detach(&self.link, Deadline::after(TIMEOUT)).await;
        self.network.close(Deadline::after(TIMEOUT)).await;
    }
}

fn image(path: &Path) -> Result<()> {
    let mut tree = Tree::new(Meta::root(0o755));
    for name in ["dev", "proc", "sys"] {
        tree.put(name, Meta::root(0o755), Kind::Directory)?;
    }
    tree.put("dev/console", Meta::root(0o600), Kind::CharDevice { major: 5, minor: 1 })?;
    tree.put("dev/null", Meta::root(0o666), Kind::CharDevice { major: 1, minor: 3 })?;
    tree.put("init", Meta::root(0o755), Kind::File(Source::Path(dist_binary("bench-idle"))))?;
    let mut file = std::fs::File::create(path)?;
    tree.write(&mut file, &Options::default())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?;
    Ok(())
}
