//! Makes one microVM, step by step; whatever step fails, what the earlier ones made is removed.

use std::sync::Arc;

use nex_network::Attachment;
use nex_process::Deadline;
use nex_process::cgroup::CgroupLimits;
use nex_process::jail::MAX_LINE;
use nex_vmm::{Machine, MachineSpec, Nic, Snapshot, VmmKind};

use super::guest::{self, Guest};
use super::sandbox::MicroVm;
use super::{Shared, template};
pub(super) use crate::host::directory;
use crate::host::{Draft, join, write_record};
use crate::output::{StderrTail, to_line_sink};
use crate::record::REMOVAL;
use crate::removal::Removal;
use crate::{CreateError, MachineSize, SandboxId, SandboxRecord, SandboxSpec};

/// What a monitor needs beside its guest's memory, MiB: measured at 30 to 110 under QEMU's emulation, at 5 under Firecracker.
const MONITOR_MEMORY_MIB: u64 = 256;
/// Threads of a monitor: processors, workers, its own.
const MONITOR_THREADS: u64 = 128;

pub(super) async fn create(shared: &Arc<Shared>, spec: SandboxSpec, by: Deadline) -> Result<MicroVm, CreateError> {
    if spec.identity.len() > MAX_LINE / 2 || spec.identity.contains(&b'\n') {
        return Err(CreateError::Identity(spec.id));
    }
    let size = spec.size.unwrap_or(shared.config.size);
    let template = if shared.config.snapshots { Some(template::get(shared, size, by).await?) } else { None };
    let cradle = start(shared, &spec.id, size, template.as_deref().map(|template| &template.snapshot), by).await?;
    let kind = shared.vmm.kind();
    let met = async {
        let machine = cradle.machine();
        let mut guest = match template {
            Some(_) => Guest::meet_clone(machine, kind, by).await?,
            None => Guest::meet(machine, by).await?,
        };
        tracing::debug!(id = %spec.id, "the guest listens");
        guest.welcome(machine, kind, guest::welcome(shared, &spec.identity, cradle.link()), by).await?;
        tracing::debug!(id = %spec.id, "the guest knows who it is");
        Ok(guest)
    };
    match cradle.unless_ended(met).await {
        Ok(guest) => Ok(cradle.into_sandbox(guest)),
        Err(error) => {
            cradle.end().await;
            Err(error)
        }
    }
}

/// A machine that runs and belongs to nobody yet. Dropped, it is removed in the background.
pub(super) struct Cradle {
    shared: Arc<Shared>,
    record: SandboxRecord,
    link: Attachment,
    machine: Option<Box<dyn Machine>>,
    stderr_tail: StderrTail,
}

/// Starts a machine and records it.
pub(super) async fn start(
    shared: &Arc<Shared>,
    id: &SandboxId,
    size: MachineSize,
    template: Option<&Snapshot>,
    by: Deadline,
) -> Result<Cradle, CreateError> {
    let mut draft = Draft::new(&shared.host, Shared::own_uids())?;
    let dir = draft.directory(id, draft.uid.is_some())?;
    let machine_dir = shared.machine_dir(id);
    draft.sub_directory(&machine_dir, 0o700, draft.uid)?;
    let link = Link::new(shared, shared.network.attach(id.as_str(), draft.uid, by).await?);
    tracing::debug!(%id, "connected to the network");
    let stderr_tail = StderrTail::default();
    let spec = MachineSpec {
        id: id.to_string(),
        dir: machine_dir,
        vcpus: size.vcpus,
        memory_mib: size.memory_mib,
        kernel: shared.config.kernel.clone(),
        boot_args: "init=/nex-agent quiet loglevel=1".to_owned(),
        root: shared.config.rootfs.clone(),
        drives: vec![shared.drives.empty()],
        drive_limiter: shared.config.rates,
        nic: Some(Nic {
            tap: link.attachment().tap.clone(),
            mac: guest::mac(link.attachment().mac).parse()?,
            rx: shared.config.rates,
            tx: shared.config.rates,
        }),
        netns: link.attachment().netns.clone(),
        run_as: draft.uid,
        balloon: false,
        metadata: shared.vmm.kind() == VmmKind::Firecracker,
        console: to_line_sink(id, "console", Some(stderr_tail.clone())),
    };
    let started = match template {
        Some(snapshot) => shared.vmm.restore(spec, snapshot, by).await,
        None => shared.vmm.boot(spec, by).await,
    };
    let machine = match started {
        Ok(machine) => machine,
        Err(error) => {
            link.undo().await;
            return Err(error.into());
        }
    };
    tracing::debug!(%id, "the machine runs");
    let (leader, uid) = (machine.process(), draft.uid);
    let link = link.keep();
    let record = SandboxRecord { id: id.clone(), leader, cgroup: None, dir, uid, network: Some(link.clone()), own_root: true };
    draft.done();
    // From here on something exists that removes itself when it is dropped.
    let mut cradle = Cradle { shared: Arc::clone(shared), record, link, machine: Some(machine), stderr_tail };
    match cradle.confine(size).await {
        Ok(()) => Ok(cradle),
        Err(error) => {
            cradle.end().await;
            Err(error)
        }
    }
}

impl Cradle {
    /// Writes down what is to be removed, before and after it is put into its group.
    async fn confine(&mut self, size: MachineSize) -> Result<(), CreateError> {
        write_record(&self.record)?;
        let limits = CgroupLimits {
            memory_bytes: Some((u64::from(size.memory_mib) + MONITOR_MEMORY_MIB) << 20),
            pids: Some(MONITOR_THREADS + u64::from(size.vcpus)),
            cpu_percent: None,
        };
        let cgroup = self.shared.host.cgroup(&self.record.id, &limits)?;
        join(self.record.cgroup.insert(cgroup).clone(), self.record.leader.pid).await?;
        write_record(&self.record)
    }

    pub(super) fn machine(&self) -> &dyn Machine {
        // It is taken out by those only who consume all of this.
        self.machine.as_deref().unwrap_or_else(|| unreachable!("a cradle has a machine for as long as it lives"))
    }

    pub(super) fn link(&self) -> &Attachment {
        &self.link
    }

    /// Does something with the guest. Where that fails, what the machine has said is told: of its death, or of its silence.
    pub(super) async fn unless_ended<T>(&self, work: impl Future<Output = Result<T, CreateError>>) -> Result<T, CreateError> {
        let done = work.await;
        let Err(error) = done else { return done };
        // A guest that dies takes its channel along: the death is the cause, the channel the symptom.
        let exit = Deadline::after(std::time::Duration::from_millis(200)).bound(self.machine().exited()).await;
        match exit {
            Ok(exit) => {
                Err(CreateError::Died(crate::ExitReport { exit, out_of_memory: false, stderr_tail: self.stderr_tail.get() }))
            }
            Err(_alive) => Err(CreateError::NotUp { console: self.stderr_tail.shown(), source: Box::new(error) }),
        }
    }

    fn into_sandbox(mut self, guest: Guest) -> MicroVm {
        let machine = self.machine.take().unwrap_or_else(|| unreachable!("a cradle has a machine for as long as it lives"));
        MicroVm::new(Arc::clone(&self.shared), self.record.clone(), machine, guest, self.stderr_tail.clone())
    }

    /// Ends the machine and removes everything of it.
    pub(super) async fn end(mut self) {
        let Some(machine) = self.machine.take() else { return };
        let _exit = machine.kill().await;
        remove(&self.shared, &self.record).await;
    }
}

impl Drop for Cradle {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            remove_later(&self.shared, &self.record, machine);
        }
    }
}

/// Removes what is left of a machine that has ended. Returns whether that is nothing.
pub(super) async fn remove(shared: &Shared, record: &SandboxRecord) -> bool {
    let by = Deadline::after(REMOVAL);
    let detached = match &record.network {
        Some(attachment) => shared.network.detach(attachment, by).await,
        None => true,
    };
    let removed = crate::remove_leftover(record, by).await;
    shared.host.uids().free(record.uid);
    detached && removed
}

/// The same for one that still runs, in the background.
pub(super) fn remove_later(shared: &Arc<Shared>, record: &SandboxRecord, machine: Box<dyn Machine>) {
    let (owner, link) = (Arc::clone(shared), record.network.clone());
    let end = async move {
        let _exit = machine.kill().await;
        if let Some(link) = link {
            owner.network.detach(&link, Deadline::after(REMOVAL)).await;
        }
    };
    Removal::start(&shared.host, record.clone(), Box::pin(end));
}

/// A connection that no machine has yet. Dropped, it is taken back in the background.
struct Link<'a> {
    shared: &'a Arc<Shared>,
    attachment: Option<Attachment>,
}

impl<'a> Link<'a> {
    fn new(shared: &'a Arc<Shared>, attachment: Attachment) -> Self {
        Self { shared, attachment: Some(attachment) }
    }

    fn attachment(&self) -> &Attachment {
        self.attachment.as_ref().unwrap_or_else(|| unreachable!("a link has its attachment until it is kept"))
    }

    /// Takes it back and waits for that.
    async fn undo(mut self) {
        if let Some(attachment) = self.attachment.take() {
            self.shared.network.detach(&attachment, Deadline::after(REMOVAL)).await;
        }
    }

    fn keep(mut self) -> Attachment {
        self.attachment.take().unwrap_or_else(|| unreachable!("a link has its attachment until it is kept"))
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        if let Some(attachment) = self.attachment.take() {
            let shared = Arc::clone(self.shared);
            self.shared.host.removal.spawn("detach", async move {
                shared.network.detach(&attachment, Deadline::after(REMOVAL)).await;
            });
        }
    }
}
