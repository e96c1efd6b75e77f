//! A clone whose guest does not resume. No monitor can be asked for one, so the monitor and its guests are played here; the provider, the
//! network, the processes and the cgroups are real.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use nex_network::{Network, NetworkConfig, NetworkKind, Policy};
use nex_process::{Child, ChildSpec, Deadline, Exit, ProcessId, Signal, TaskScope};
use nex_protocol::guest::{FromGuest, GuestLimits, ToGuest};
use nex_sandbox::microvm::{MicroVmConfig, MicroVmProvider};
use nex_sandbox::{MachineSize, SandboxId, SandboxProvider as _, SandboxSpec};
use nex_testkit::skip;
use nex_vmm::{LeftMachine, Machine, MachineSpec, RateLimiter, Snapshot, Vmm, VmmError, VmmKind};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

const WITHIN: Duration = Duration::from_secs(60);

/// A monitor whose first clones are mute.
#[derive(Debug, Default)]
struct Played {
    mute: usize,
    clones: Mutex<Vec<ProcessId>>,
    restored: AtomicUsize,
}

/// A process that does nothing, and the stream to a guest.
#[derive(Debug)]
struct PlayedMachine {
    process: Child,
    channel: Mutex<Option<UnixStream>>,
    _guest: TaskScope,
}

/// A guest that says that it is ready, or one that answers to its identity, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Template,
    Clone,
    Mute,
}

fn machine(part: Part) -> Box<PlayedMachine> {
    let process = ChildSpec::new("/bin/sleep").args(["1000"]).spawn().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let guest = TaskScope::new("guest");
    guest.spawn("guest", play(part, theirs));
    Box::new(PlayedMachine { process, channel: Mutex::new(Some(ours)), _guest: guest })
}

async fn play(part: Part, stream: UnixStream) {
    let mut stream = BufReader::new(stream);
    if part == Part::Template {
        say(&mut stream, &FromGuest::Ready { version: env!("CARGO_PKG_VERSION").to_owned() }).await;
    }
    let mut line = String::new();
    while stream.read_line(&mut line).await.unwrap() > 0 {
        if part == Part::Clone && matches!(serde_json::from_str(&line).unwrap(), ToGuest::Identity(_)) {
            say(&mut stream, &FromGuest::Identified).await;
        }
        line.clear();
    }
}

async fn say(stream: &mut BufReader<UnixStream>, message: &FromGuest) {
    let line = serde_json::to_string(message).unwrap() + "\n";
    stream.get_mut().write_all(line.as_bytes()).await.unwrap();
}

impl Vmm for Played {
    fn kind(&self) -> VmmKind {
        VmmKind::Qemu
    }

    fn version(&self, _by: Deadline) -> BoxFuture<'_, Result<String, VmmError>> {
        ready(Ok("1".to_owned())).boxed()
    }

    fn boot(&self, _spec: MachineSpec, _by: Deadline) -> BoxFuture<'_, Result<Box<dyn Machine>, VmmError>> {
        async { Ok(machine(Part::Template) as _) }.boxed()
    }

    fn restore<'a>(
        &'a self,
        _spec: MachineSpec,
        _from: &'a Snapshot,
        _by: Deadline,
    ) -> BoxFuture<'a, Result<Box<dyn Machine>, VmmError>> {
        async {
            let is_mute = self.restored.fetch_add(1, Ordering::Relaxed) < self.mute;
            let clone = machine(if is_mute { Part::Mute } else { Part::Clone });
            self.clones.lock().unwrap().push(clone.process());
            Ok(clone as _)
        }
        .boxed()
    }

    fn adopt(&self, _left: LeftMachine<'_>) -> Result<Box<dyn Machine>, VmmError> {
        unreachable!("nothing was left")
    }
}

impl Machine for PlayedMachine {
    fn process(&self) -> ProcessId {
        self.process.id()
    }

    fn channel(&self, _by: Deadline) -> BoxFuture<'_, Result<UnixStream, VmmError>> {
        ready(Ok(self.channel.lock().unwrap().take().unwrap())).boxed()
    }

    fn set_metadata<'a>(&'a self, _value: &'a Value, _by: Deadline) -> BoxFuture<'a, Result<(), VmmError>> {
        ready(Ok(())).boxed()
    }

    fn swap_drive<'a>(&'a self, _slot: usize, _image: &'a Path, _by: Deadline) -> BoxFuture<'a, Result<(), VmmError>> {
        ready(Ok(())).boxed()
    }

    fn set_balloon(&self, _mib: u32, _by: Deadline) -> BoxFuture<'_, Result<(), VmmError>> {
        ready(Ok(())).boxed()
    }

    fn limit_network(&self, _rx: RateLimiter, _tx: RateLimiter, _by: Deadline) -> BoxFuture<'_, Result<(), VmmError>> {
        ready(Ok(())).boxed()
    }

    fn snapshot<'a>(&'a self, into: &'a Path, _by: Deadline) -> BoxFuture<'a, Result<Snapshot, VmmError>> {
        let written = json!({"kind": VmmKind::Qemu, "memory": into, "state": into, "memory_mib": 128, "vcpus": 1});
        ready(Ok(serde_json::from_value(written).unwrap())).boxed()
    }

    fn press_power(&self, _by: Deadline) -> BoxFuture<'_, Result<(), VmmError>> {
        ready(Ok(())).boxed()
    }

    fn exited(&self) -> BoxFuture<'_, Exit> {
        self.process.exited().boxed()
    }

    fn kill(&self) -> BoxFuture<'_, Exit> {
        self.process.signal(Signal::SIGKILL);
        self.process.exited().boxed()
    }
}

/// A provider on the played monitor; the error says what is missing.
async fn provider(name: &str, dir: &Path, vmm: Arc<Played>) -> Result<MicroVmProvider, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("not root".to_owned());
    }
    if let Some(lack) = nex_network::check(&NetworkKind::Builtin).first() {
        return Err(format!("no {} for the network", lack.what));
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711)).unwrap();
    std::fs::write(dir.join("image"), "").unwrap();
    let node = format!("{name}{}", std::process::id() % 1_000_000);
    let network = NetworkConfig {
        kind: NetworkKind::Builtin,
        owner: node.clone(),
        state_dir: dir.join("network"),
        subnet: None,
        gateway: None,
        policy: Policy::default(),
        limits: None,
    };
    let network = Network::open(network, Deadline::after(WITHIN)).await.map_err(|error| error.to_string())?;
    let config = MicroVmConfig {
        node,
        state_dir: dir.join("state"),
        uid_base: crate::fixture::UID_BASE + 100_000,
        kernel: dir.join("image"),
        rootfs: dir.join("image"),
        size: MachineSize { vcpus: 1, memory_mib: 128 },
        limits: GuestLimits { uid: 1000, processes: 64, open_files: 64, file_bytes: 1 << 20, tmp_bytes: 1 << 20 },
        rates: None,
        dns: Vec::new(),
        snapshots: true,
    };
    Ok(MicroVmProvider::open(config, vmm, network).unwrap())
}

fn spec() -> SandboxSpec {
    let id = SandboxId::parse("vm-1").unwrap();
    SandboxSpec { id, identity: b"{}".to_vec(), size: None, memory_mib: None, image: None }
}

#[tokio::test]
async fn a_clone_that_does_not_answer_is_replaced_by_a_fresh_one_within_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let vmm = Arc::new(Played { mute: 1, ..Played::default() });
    let provider = match provider("mutea", dir.path(), Arc::clone(&vmm)).await {
        Ok(provider) => provider,
        Err(why) => skip!("a_clone_that_does_not_answer_is_replaced_by_a_fresh_one_within_the_deadline", why),
    };
    let sandbox = provider.create(spec(), Deadline::after(WITHIN)).await.unwrap();
    let clones = vmm.clones.lock().unwrap().clone();
    assert_eq!(clones.len(), 2);
    assert!(!clones[0].is_alive() && sandbox.record().leader == clones[1] && clones[1].is_alive());
    sandbox.stop(Duration::ZERO).await;
    provider.close(WITHIN).await;
}

#[tokio::test]
async fn clones_that_never_answer_are_an_error_before_the_deadline_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let vmm = Arc::new(Played { mute: usize::MAX, ..Played::default() });
    let provider = match provider("muteb", dir.path(), Arc::clone(&vmm)).await {
        Ok(provider) => provider,
        Err(why) => skip!("clones_that_never_answer_are_an_error_before_the_deadline_and_leave_nothing", why),
    };
    let error = provider.create(spec(), Deadline::after(Duration::from_secs(4))).await.err().unwrap();
    let text = nex_protocol::envelope::chain(&error);
    assert!(text.contains("did not answer in time"), "{text}");
    let clones = vmm.clones.lock().unwrap().clone();
    assert_eq!(clones.len(), 3);
    assert!(clones.iter().all(|clone| !clone.is_alive()));
    assert_eq!(std::fs::read_dir(dir.path().join("state/agents")).unwrap().count(), 0);
    provider.close(WITHIN).await;
}
