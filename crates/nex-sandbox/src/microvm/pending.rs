//! Starts a machine and owns it until its guest is ready to be a sandbox.

use std::sync::Arc;
use std::time::Duration;

use nex_network::Attachment;
use nex_process::cgroup::CgroupLimits;
use nex_process::{Deadline, crash_point};
use nex_vmm::{Machine, MachineSpec, Nic, Snapshot, VmmKind};

use super::guest::Guest;
use super::link::PendingLink;
use super::sandbox::MicroVm;
use super::shared::Shared;
use super::teardown::{remove, remove_later};
use crate::error::{CreateError, GuestError};
use crate::host::{Draft, join, write_record};
use crate::id::SandboxId;
use crate::output::{StderrTail, to_line_sink};
use crate::record::SandboxRecord;
use crate::report::ExitReport;
use crate::spec::MachineSize;

/// Memory of a monitor on top of its guest's, MiB: measured at 30 to 110 under QEMU's emulation, at 5 under Firecracker.
const MONITOR_MEMORY_MIB: u64 = 256;
/// Threads of a monitor: workers and its own; the vCPUs are added.
const MONITOR_THREADS: u64 = 128;

/// How long a monitor may take to end after its guest, whose channel broke, and after any other failure.
const LAST_BREATH: Duration = Duration::from_secs(3);
const BRIEF: Duration = Duration::from_millis(200);

/// A running machine without an agent. Dropped, it is removed in the background.
pub(super) struct PendingMachine {
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
) -> Result<PendingMachine, CreateError> {
    let mut draft = Draft::new(&shared.host, Shared::own_uids())?;
    let dir = draft.directory(id, draft.uid.is_some())?;
    draft.sub_directory(&shared.machine_dir(id), 0o700, draft.uid)?;
    crash_point("machine: its directories are made");
    let link = PendingLink::new(shared, shared.network.attach(id.as_str(), draft.uid, by).await?);
    tracing::debug!(%id, "connected to the network");
    crash_point("machine: its network is made");
    let stderr_tail = StderrTail::default();
    let spec = machine_spec(shared, id, size, (link.attachment(), draft.uid), &stderr_tail)?;
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
    crash_point("machine: it runs");
    let (leader, uid) = (machine.process(), draft.uid);
    let link = link.keep();
    let record = SandboxRecord {
        id: id.clone(),
        leader,
        cgroup: None,
        dir,
        uid,
        monitor: Some(shared.vmm.kind()),
        network: Some(link.clone()),
        veth: None,
        own_root: true,
    };
    draft.done();
    // From here on, dropping the pending machine removes everything.
    let mut pending = PendingMachine { shared: Arc::clone(shared), record, link, machine: Some(machine), stderr_tail };
    match pending.confine(size).await {
        Ok(()) => Ok(pending),
        Err(error) => {
            pending.end().await;
            Err(error)
        }
    }
}

/// What a monitor is to run as its user, on its network.
fn machine_spec(
    shared: &Shared,
    id: &SandboxId,
    size: MachineSize,
    (link, run_as): (&Attachment, Option<u32>),
    stderr_tail: &StderrTail,
) -> Result<MachineSpec, CreateError> {
    let rates = shared.config.rates;
    Ok(MachineSpec {
        id: id.to_string(),
        dir: shared.machine_dir(id),
        vcpus: size.vcpus,
        memory_mib: size.memory_mib,
        kernel: shared.config.kernel.clone(),
        boot_args: "init=/nex-agent quiet loglevel=1".to_owned(),
        root: shared.config.rootfs.clone(),
        drives: vec![shared.drives.empty()],
        drive_limiter: rates,
        nic: Some(Nic { tap: link.tap.clone(), mac: link.mac.try_into()?, rx: rates, tx: rates }),
        netns: link.netns.clone(),
        run_as,
        balloon: false,
        metadata: shared.vmm.kind() == VmmKind::Firecracker,
        console: to_line_sink(id, "console", Some(stderr_tail.clone())),
    })
}

impl PendingMachine {
    /// Puts the monitor into its cgroup; the record is written before and after.
    async fn confine(&mut self, size: MachineSize) -> Result<(), CreateError> {
        write_record(&self.record)?;
        crash_point("machine: it is recorded");
        let limits = CgroupLimits {
            memory_bytes: Some((u64::from(size.memory_mib) + MONITOR_MEMORY_MIB) << 20),
            pids: Some(MONITOR_THREADS + u64::from(size.vcpus)),
            cpu_percent: None,
        };
        let cgroup = self.shared.host.cgroup(&self.record.id, &limits)?;
        join(self.record.cgroup.insert(cgroup).clone(), self.record.leader.pid).await?;
        crash_point("machine: its monitor is in its cgroup");
        write_record(&self.record)
    }

    pub(super) fn machine(&self) -> &dyn Machine {
        self.machine.as_deref().unwrap_or_else(|| unreachable!("the machine is taken only by value"))
    }

    pub(super) fn link(&self) -> &Attachment {
        &self.link
    }

    /// Runs work on the guest; an error gains the end of the console and says whether the machine died.
    pub(super) async fn explain_failure<T>(&self, work: impl Future<Output = Result<T, CreateError>>) -> Result<T, CreateError> {
        let done = work.await;
        let Err(error) = done else { return done };
        // A guest that dies takes its channel along: the death is the cause, the channel the symptom.
        let patience = if matches!(error, CreateError::Guest(GuestError::Broken(_))) { LAST_BREATH } else { BRIEF };
        let exit = Deadline::after(patience).bound(self.machine().exited()).await;
        match exit {
            Ok(exit) => Err(CreateError::Died(ExitReport { exit, out_of_memory: false, stderr_tail: self.stderr_tail.get() })),
            Err(_alive) => Err(CreateError::NotUp { console: self.stderr_tail.shown(), source: Box::new(error) }),
        }
    }

    pub(super) fn into_sandbox(mut self, guest: Guest) -> MicroVm {
        let machine = self.machine.take().unwrap_or_else(|| unreachable!("the machine is taken only by value"));
        MicroVm::new(Arc::clone(&self.shared), self.record.clone(), machine, guest, self.stderr_tail.clone())
    }

    /// Kills the machine and removes everything that belongs to it.
    pub(super) async fn end(mut self) {
        let Some(machine) = self.machine.take() else { return };
        let _exit = machine.kill().await;
        remove(&self.shared, &self.record).await;
    }
}

impl Drop for PendingMachine {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            remove_later(&self.shared, &self.record, machine);
        }
    }
}
