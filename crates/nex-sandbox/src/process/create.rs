//! Creates a process sandbox step by step. A failing step removes what the earlier ones made.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nex_process::confinement::{Layer, Mode};
use nex_process::jail::{JailSpec, MAX_LINE, ProcessLimits};
use nex_process::{ChildSpec, Deadline, Elapsed, Output, ProcessId, Stdin, crash_point};

use super::config::Limits;
use super::sandbox::{ProcessSandbox, link_or_copy};
use super::shared::Shared;
use super::tool::Tool;
use crate::error::CreateError;
use crate::host::{Draft, directory, join, write_record};
use crate::id::SandboxId;
use crate::output::{StderrTail, to_log};
use crate::record::SandboxRecord;
use crate::sandbox::Sandbox;
use crate::spec::SandboxSpec;

/// What the program in a sandbox does.
#[derive(Debug, Clone)]
pub(super) enum Role {
    /// To run a workload.
    Agent,
    /// To make a file of another, without a network.
    Tool(Tool),
}

/// Name of a tool's artifact.
const ARTIFACT: &str = "artifact";

pub(super) async fn create(
    shared: &Arc<Shared>,
    spec: SandboxSpec,
    role: Role,
    by: Deadline,
) -> Result<ProcessSandbox, CreateError> {
    check(&spec, by)?;
    let mut limits = shared.config.limits(spec.size, spec.memory_mib);
    let mut draft = Draft::new(&shared.host, shared.has_own_uids())?;
    let dir = directories(shared, &mut draft, &spec.id)?;
    crash_point("sandbox: its directories are made");
    let stderr_tail = StderrTail::default();
    let mut agent = ChildSpec::new(&shared.config.agent_binary)
        .current_dir(&dir)
        // It believes its bus's own certificate and no authority's: those of the host are not read at each connection.
        .env("SSL_CERT_FILE", "/dev/null")
        .stdin(Stdin::Held)
        .stdout(to_log(&spec.id, "stdout", None))
        .stderr(to_log(&spec.id, "stderr", Some(stderr_tail.clone())));
    let mut link = None;
    let no_network = matches!(role, Role::Tool(_));
    match (role, shared.network()) {
        (Role::Tool(tool), _) => {
            limits.file_bytes = tool.max_bytes;
            limits.memory_bytes = tool.memory_bytes.unwrap_or(limits.memory_bytes);
            agent = equip(agent, tool, &dir).await?;
        }
        (Role::Agent, Some(network)) => {
            let (attachment, netns) = network.attach_process(spec.id.as_str(), by).await?;
            agent = agent.netns_fd(netns);
            link = Some(attachment);
            crash_point("sandbox: its network is made");
        }
        (Role::Agent, None) => {}
    }
    let spawned = agent.spawn();
    if spawned.is_err() {
        shared.detach(link.as_ref()).await;
    }
    let child = spawned?;
    crash_point("sandbox: its process is started");
    let image = spec.image;
    let record = SandboxRecord {
        id: spec.id,
        leader: child.id(),
        cgroup: None,
        dir,
        uid: draft.uid,
        monitor: None,
        network: None,
        veth: link,
        own_root: shared.confinement.root == Layer::Held,
    };
    draft.done();
    // From here on, dropping the sandbox removes everything. Its process waits for its stdin.
    let mut sandbox = ProcessSandbox::new(shared, record, child, stderr_tail);
    bound(shared, &mut sandbox, &limits).await?;
    let jail = jail_spec(shared, &sandbox.record, &limits, (no_network, image));
    let lines = [jail, b"\n".to_vec(), spec.identity, b"\n".to_vec()].concat();
    if let Err(_broken) = by.bound(sandbox.feed(&lines)).await? {
        return Err(CreateError::Died(by.bound(sandbox.exited()).await?));
    }
    crash_point("sandbox: its process runs on");
    Ok(sandbox)
}

fn check(spec: &SandboxSpec, by: Deadline) -> Result<(), CreateError> {
    if spec.identity.len() > MAX_LINE || spec.identity.contains(&b'\n') {
        return Err(CreateError::Identity(spec.id.clone()));
    }
    if by.is_past() { Err(CreateError::Late(Elapsed)) } else { Ok(()) }
}

/// Puts its process under its limits, and has it on disk how to remove it.
async fn bound(shared: &Shared, sandbox: &mut ProcessSandbox, limits: &Limits) -> Result<(), CreateError> {
    let record = &mut sandbox.record;
    let cgroup = shared.host.cgroup(&record.id, &limits.of_cgroup())?;
    join(record.cgroup.insert(cgroup).clone(), record.leader.pid).await?;
    crash_point("sandbox: its process is in its cgroup");
    write_record(record)?;
    crash_point("sandbox: it is recorded");
    Ok(())
}

/// Gives a tool its artifact and its files.
async fn equip(agent: ChildSpec, tool: Tool, dir: &Path) -> Result<ChildSpec, CreateError> {
    let Tool { argument, artifact, output, spool, .. } = tool;
    let (target, copied) = (dir.join("artifact").join(ARTIFACT), artifact.clone());
    let linked = tokio::task::spawn_blocking(move || link_or_copy(&copied, &target)).await;
    linked.map_err(io::Error::from).flatten().map_err(directory(&artifact))?;
    let agent = agent.args([argument]).stdout(Output::File(output));
    Ok(match spool {
        Some(spool) => agent.args([spool.as_raw_fd().to_string()]).inherit(spool),
        None => agent,
    })
}

fn directories(shared: &Shared, draft: &mut Draft, id: &SandboxId) -> Result<PathBuf, CreateError> {
    let plain = shared.confinement.mode == Mode::Plain;
    // With an own root the directory is bind-mounted; without one the agent opens it by its path.
    let dir = draft.directory(id, plain && draft.uid.is_some())?;
    draft.sub_directory(&dir.join("artifact"), 0o755, None)?;
    if plain {
        draft.sub_directory(&dir.join("work"), 0o700, draft.uid)?;
    }
    Ok(dir)
}

/// Where an agent shares its uid, the limit counts all that this user runs, now and later: a wide one, which stops no more than
/// the flooding of the host.
fn shared_processes(pids: u64) -> u64 {
    const ROOM: u64 = 4096;
    let now: u64 = ProcessId::all_of_user(nix::unistd::getuid().as_raw()).iter().map(|(_, threads)| threads).sum();
    now + pids + ROOM
}

fn jail_spec(shared: &Shared, record: &SandboxRecord, limits: &Limits, (no_network, image): (bool, Option<PathBuf>)) -> Vec<u8> {
    let (config, confinement) = (&shared.config, &shared.confinement);
    let (dir, uid) = (&record.dir, record.uid);
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
        work_dir: (confinement.mode == Mode::Plain).then(|| dir.join("work")),
        tmp_bytes: limits.tmp_bytes,
        limits: ProcessLimits {
            open_files: limits.open_files,
            processes: Some(if alone { limits.pids } else { shared_processes(limits.pids) }),
            file_bytes: limits.file_bytes,
            data_bytes: (!limited("memory")).then_some(limits.memory_bytes),
        },
        cgroup: confinement.cgroup.clone(),
        network: confinement.network.clone(),
        no_network,
        resolv_conf: shared.network.resolv_conf(),
        image,
        require: config.require.clone(),
    };
    serde_json::to_vec(&spec).unwrap_or_default()
}
