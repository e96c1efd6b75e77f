//! Makes one sandbox, step by step; whatever step fails, what the earlier ones made is removed.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nex_process::cgroup::Cgroup;
use nex_process::confinement::{Layer, Mode};
use nex_process::jail::{JailSpec, MAX_LINE, ProcessLimits};
use nex_process::{ChildSpec, Deadline, ProcessId, Stdin};

use super::output::{LastWords, to_log};
use super::sandbox::ProcessSandbox;
use super::{Shared, slots};
use crate::remove::remove_tree;
use crate::{CreateError, Sandbox, SandboxId, SandboxRecord, SandboxSpec};

pub(super) async fn create(shared: &Arc<Shared>, spec: SandboxSpec, by: Deadline) -> Result<ProcessSandbox, CreateError> {
    if spec.identity.len() > MAX_LINE || spec.identity.contains(&b'\n') {
        return Err(CreateError::Identity(spec.id));
    }
    let mut draft = Draft::new(shared);
    draft.uid = shared.has_own_uids().then(|| shared.slots().take().ok_or(CreateError::Full(slots::SLOTS))).transpose()?;
    let dir = draft.directories(&spec.id)?;
    let last_words = LastWords::default();
    let child = ChildSpec::new(&shared.config.agent_binary)
        .current_dir(&dir)
        .stdin(Stdin::Held)
        .stdout(to_log(&spec.id, "stdout", None))
        .stderr(to_log(&spec.id, "stderr", Some(last_words.clone())))
        .spawn()?;
    let record = SandboxRecord {
        id: spec.id,
        leader: child.id(),
        cgroup: None,
        dir,
        uid: draft.uid,
        own_root: shared.confinement.root == Layer::Held,
    };
    draft.done = true;
    // From here on a sandbox exists that removes itself when it is dropped. Its process waits for its stdin.
    let mut sandbox = ProcessSandbox::owned(shared, record, child, last_words);
    let cgroup = shared.cgroups.create(&shared.config.cgroup_name(&sandbox.record.id), &shared.config.cgroup_limits())?;
    join(sandbox.record.cgroup.insert(cgroup).clone(), sandbox.record.leader.pid).await?;
    let record = &sandbox.record;
    write_record(record).map_err(directory(&record.dir))?;
    let lines = [jail_spec(shared, &record.dir, record.uid), b"\n".to_vec(), spec.identity, b"\n".to_vec()].concat();
    if let Err(_broken) = by.bound(sandbox.feed(&lines)).await? {
        return Err(CreateError::Died(by.bound(sandbox.exited()).await?));
    }
    Ok(sandbox)
}

/// Moving a process into a group waits for the kernel (an RCU grace period, up to 15 ms): not on a thread that others share.
async fn join(cgroup: Cgroup, pid: i32) -> Result<(), CreateError> {
    let joined = tokio::task::spawn_blocking(move || cgroup.add(pid)).await;
    joined.map_err(|stopped| CreateError::Stopped(stopped.into()))?.map_err(CreateError::from)
}

/// What was made before there is a process; dropped before it is done, it takes that back.
struct Draft<'a> {
    shared: &'a Arc<Shared>,
    uid: Option<u32>,
    dir: Option<PathBuf>,
    done: bool,
}

impl<'a> Draft<'a> {
    fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared, uid: None, dir: None, done: false }
    }

    fn directories(&mut self, id: &SandboxId) -> Result<PathBuf, CreateError> {
        let dir = self.shared.config.agents_dir().join(id.as_str());
        let plain = self.shared.confinement.mode == Mode::Plain;
        // With an own root the agent gets in by binding; without one it must walk here, and nobody else needs to.
        let mode = if plain && self.uid.is_some() { 0o711 } else { 0o700 };
        match fs::DirBuilder::new().mode(mode).create(&dir) {
            Ok(()) => self.dir = Some(dir.clone()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(CreateError::Taken(id.clone())),
            Err(source) => return Err(CreateError::Directory { path: dir, source }),
        }
        if plain && self.uid.is_some() {
            let above = [self.shared.config.agents_dir(), self.shared.config.state_dir.clone()];
            above.iter().try_for_each(|path| let_pass(path).map_err(directory(path)))?;
        }
        self.sub_directory(&dir.join("artifact"), 0o755, None)?;
        self.sub_directory(&dir.join("out"), 0o700, self.uid)?;
        if plain {
            self.sub_directory(&dir.join("work"), 0o700, self.uid)?;
        }
        Ok(dir)
    }

    fn sub_directory(&self, path: &Path, mode: u32, owner: Option<u32>) -> Result<(), CreateError> {
        let make = || {
            fs::DirBuilder::new().mode(mode).create(path)?;
            // The mode given at creation is subject to the umask.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            owner.map_or(Ok(()), |uid| chown(path, Some(uid), Some(uid)))
        };
        make().map_err(directory(path))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Some(Err(error)) = self.dir.as_deref().map(remove_tree) {
            tracing::warn!(%error, "directory of a failed sandbox is still there");
        }
        self.shared.slots().free(self.uid);
    }
}

/// Lets others pass through a directory, without letting them see what is in it.
fn let_pass(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o011 == 0o011 { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o011)) }
}

fn directory(path: &Path) -> impl FnOnce(io::Error) -> CreateError {
    let path = path.to_owned();
    move |source| CreateError::Directory { path, source }
}

/// Written whole or not at all: a record is read after crashes.
fn write_record(record: &SandboxRecord) -> io::Result<()> {
    let (path, draft) = (record.dir.join("record.json"), record.dir.join("record.draft"));
    fs::write(&draft, serde_json::to_vec(record)?)?;
    fs::rename(draft, path)
}

/// Where an agent shares its uid, the limit counts all that this user runs, now and later: a wide one, which stops no more than
/// the flooding of the host.
fn shared_processes(pids: u64) -> u64 {
    const ROOM: u64 = 4096;
    let now: u64 = ProcessId::all_of_user(nix::unistd::getuid().as_raw()).iter().map(|(_, threads)| threads).sum();
    now + pids + ROOM
}

fn jail_spec(shared: &Shared, dir: &Path, uid: Option<u32>) -> Vec<u8> {
    let (config, confinement) = (&shared.config, &shared.confinement);
    let limits = &config.limits;
    let limited = |name: &str| confinement.cgroup.controllers.iter().any(|controller| controller == name);
    let alone = uid.is_some() || confinement.mode == Mode::UserNamespace;
    let mode_reason = match &confinement.namespaces {
        Layer::Held => None,
        Layer::Missing { reason } => Some(reason.clone()),
    };
    let spec = JailSpec {
        mode: confinement.mode,
        mode_reason,
        uid,
        artifact_dir: dir.join("artifact"),
        out_dir: dir.join("out"),
        work_dir: (confinement.mode == Mode::Plain).then(|| dir.join("work")),
        tmp_bytes: limits.tmp_bytes,
        limits: ProcessLimits {
            open_files: limits.open_files,
            processes: Some(if alone { limits.pids } else { shared_processes(limits.pids) }),
            file_bytes: limits.file_bytes,
            data_bytes: (!limited("memory")).then_some(limits.memory_bytes),
        },
        cgroup: confinement.cgroup.clone(),
        tcp_connect: config.tcp_connect.clone(),
        require: config.require.clone(),
    };
    serde_json::to_vec(&spec).unwrap_or_default()
}
