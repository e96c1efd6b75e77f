//! The agent as the init's child: started and jailed as in a sandbox of processes, but with a machine of its own around it.

use std::fs;

use anyhow::Context as _;
use nex_process::confinement::{CgroupLayer, Mode};
use nex_process::jail::{JailSpec, ProcessLimits};
use nex_process::{Child, ChildSpec, Output, Stdin};
use nex_protocol::guest::{GuestLimits, Welcome};

/// Its directories; the jail has the same names for them.
pub(super) const ARTIFACT: &str = "/artifact";
pub(super) const OUT: &str = "/out";
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

/// Starts this program again as the agent, and tells it how to jail itself and who it is.
///
/// # Errors
/// When it does not start, or ends before it has read that.
pub(super) async fn start(welcome: &Welcome) -> anyhow::Result<Child> {
    let child = ChildSpec::new("/proc/self/exe")
        .args([crate::IN_GUEST])
        .current_dir("/")
        .stdin(Stdin::Held)
        .stdout(Output::Inherit)
        .stderr(Output::Inherit)
        .spawn()
        .context("cannot start the agent")?;
    fs::write(format!("/proc/{}/oom_score_adj", child.id().pid), LAST_BUT_ONE)
        .context("cannot keep the agent from being killed before its workload")?;
    let spec = serde_json::to_vec(&spec(&welcome.limits)).context("cannot write the specification of the jail")?;
    let lines = [&spec, b"\n".as_slice(), welcome.identity.as_bytes(), b"\n"].concat();
    child.feed(&lines).await.context("the agent ended before it was told who it is")?;
    Ok(child)
}

fn spec(limits: &GuestLimits) -> JailSpec {
    JailSpec {
        mode: Mode::Plain,
        mode_reason: Some("it has a machine of its own".to_owned()),
        uid: Some(limits.uid),
        artifact_dir: ARTIFACT.into(),
        out_dir: OUT.into(),
        work_dir: Some(WORK.into()),
        tmp_bytes: limits.tmp_bytes,
        limits: ProcessLimits {
            open_files: limits.open_files,
            processes: Some(limits.processes),
            file_bytes: limits.file_bytes,
            data_bytes: None,
        },
        cgroup: CgroupLayer::default(),
        tcp_connect: None,
        require: Vec::new(),
    }
}
