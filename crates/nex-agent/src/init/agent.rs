//! The agent as the init's child: started and jailed as in a process sandbox, but inside a machine of its own.
//!
//! It starts before the guest has an identity, and waits. So a snapshot contains it loaded and linked, which is most of its startup time;
//! in return clones share its memory layout. It draws no random numbers before it has its identity.

use std::fs;
use std::os::fd::AsRawFd as _;

use anyhow::Context as _;
use nex_process::confinement::{CgroupLayer, Layer, Mode};
use nex_process::jail::{JailSpec, ProcessLimits};
use nex_process::{Child, ChildSpec, Output, Stdin};
use nex_protocol::guest::GuestIdentity;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

/// Where the image of a workload is mounted; the root of its agent.
pub(super) const IMAGE: &str = "/image";
/// The agent's directories, inside its jail too.
pub(super) const ARTIFACT: &str = "/artifact";
pub(super) const WORK: &str = "/work";

/// OOM score adjustment of the agent: killed after its workload.
const AGENT_OOM_SCORE: &str = "-500";
/// OOM score adjustment of the init: never killed.
const INIT_OOM_SCORE: &str = "-1000";

/// Keeps the init from being killed for memory.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn set_oom_score() -> anyhow::Result<()> {
    fs::write("/proc/self/oom_score_adj", INIT_OOM_SCORE).context("cannot set the OOM score of the init")
}

/// Starts this program again as the agent, and waits until it needs only its identity.
///
/// # Errors
/// When it does not start.
pub(super) async fn load() -> anyhow::Result<Child> {
    let (theirs, mut ours) = pipe::pipe().context("cannot make a pipe for the agent")?;
    let theirs = theirs.into_blocking_fd().context("cannot give the agent a pipe")?;
    let child = ChildSpec::new("/proc/self/exe")
        .args([crate::IN_GUEST.to_owned(), theirs.as_raw_fd().to_string()])
        .inherit(theirs)
        .current_dir("/")
        // It believes its bus's own certificate and no authority's: those of the image are not read at each connection.
        .env("SSL_CERT_FILE", "/dev/null")
        .stdin(Stdin::Held)
        .stdout(Output::Inherit)
        .stderr(Output::Inherit)
        .spawn()
        .context("cannot start the agent")?;
    fs::write(format!("/proc/{}/oom_score_adj", child.id().pid), AGENT_OOM_SCORE)
        .context("cannot keep the agent from being killed before its workload")?;
    // The pipe closes when the agent is ready or ends; the driver notices an end.
    ours.read(&mut [0; 1]).await.context("cannot wait for the agent")?;
    Ok(child)
}

/// Sends the agent its jail's specification and its identity.
///
/// # Errors
/// When it ends before it has read them.
pub(super) async fn send_identity(agent: &Child, identity: &GuestIdentity) -> anyhow::Result<()> {
    let spec = serde_json::to_vec(&spec(identity)).context("cannot write the specification of the jail")?;
    let lines = [&spec, b"\n".as_slice(), identity.identity.as_bytes(), b"\n"].concat();
    agent.feed(&lines).await.context("the agent ended before it had its identity")
}

fn spec(identity: &GuestIdentity) -> JailSpec {
    let limits = &identity.limits;
    // A root of its own takes a namespace of its own.
    let (mode, image) = if identity.root.is_some() { (Mode::Privileged, Some(IMAGE.into())) } else { (Mode::Plain, None) };
    JailSpec {
        mode,
        mode_reason: Some("it has a machine of its own".to_owned()),
        uid: Some(limits.uid),
        artifact_dir: ARTIFACT.into(),
        work_dir: Some(WORK.into()),
        tmp_bytes: limits.tmp_bytes,
        limits: ProcessLimits {
            open_files: limits.open_files,
            processes: Some(limits.processes),
            file_bytes: limits.file_bytes,
            data_bytes: None,
        },
        cgroup: CgroupLayer::default(),
        network: Layer::Held,
        no_network: false,
        resolv_conf: None,
        image,
        require: Vec::new(),
    }
}
