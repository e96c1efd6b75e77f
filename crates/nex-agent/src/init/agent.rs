//! The agent as the init's child: started and jailed as in a sandbox of processes, but with a machine of its own around it.
//!
//! It is started before anybody knows who it is, and waits. So a snapshot has it loaded and linked, which is most of what starting it costs;
//! what clones share thereby is the layout of its memory. It draws nothing random before it is told who it is.

use std::fs;
use std::os::fd::AsRawFd as _;

use anyhow::Context as _;
use nex_process::confinement::{CgroupLayer, Layer, Mode};
use nex_process::jail::{JailSpec, ProcessLimits};
use nex_process::{Child, ChildSpec, Output, Stdin};
use nex_protocol::guest::{GuestLimits, Welcome};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

/// Its directories; the jail has the same names for them.
pub(super) const ARTIFACT: &str = "/artifact";
pub(super) const WORK: &str = "/work";

/// Before anything else is killed for memory, but for the init itself.
const LAST_BUT_ONE: &str = "-500";
/// Whom the kernel never kills for memory.
const NEVER: &str = "-1000";

/// Keeps the init from being killed for memory.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn spare_the_init() -> anyhow::Result<()> {
    fs::write("/proc/self/oom_score_adj", NEVER).context("cannot be spared when memory runs out")
}

/// Starts this program again as the agent, and waits until all that it needs is who it is.
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
    fs::write(format!("/proc/{}/oom_score_adj", child.id().pid), LAST_BUT_ONE)
        .context("cannot keep the agent from being killed before its workload")?;
    // It closes its end when it is ready, or by its own end, which is told elsewhere.
    ours.read(&mut [0; 1]).await.context("cannot wait for the agent")?;
    Ok(child)
}

/// Tells the agent how to jail itself and who it is.
///
/// # Errors
/// When it ends before it has read that.
pub(super) async fn tell(agent: &Child, welcome: &Welcome) -> anyhow::Result<()> {
    let spec = serde_json::to_vec(&spec(&welcome.limits)).context("cannot write the specification of the jail")?;
    let lines = [&spec, b"\n".as_slice(), welcome.identity.as_bytes(), b"\n"].concat();
    agent.feed(&lines).await.context("the agent ended before it was told who it is")
}

fn spec(limits: &GuestLimits) -> JailSpec {
    JailSpec {
        mode: Mode::Plain,
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
        require: Vec::new(),
    }
}
