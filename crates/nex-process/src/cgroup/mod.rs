//! Groups of processes that are limited and killed together, one for each agent.
//!
//! The unified hierarchy (v2) where its controllers are given to us, else one hierarchy per controller (v1), else none. Which it is
//! is found by making a group, not by looking. Groups are flat (`<prefix><agent>` in one place per hierarchy), so a name finds what
//! a crashed node left. A group outlives its maker: it goes by [`Cgroup::destroy`], never by drop.

mod detect;
mod usage;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

pub use usage::MemoryUse;

use crate::confinement::{CgroupLayer, CgroupVersion};
use crate::deadline::Deadline;
use crate::process_id::ProcessId;

/// Scheduling period of the CPU limit, in microseconds.
const PERIOD_US: u64 = 100_000;
/// How often a dying group is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Names are file names.
const MAX_NAME: usize = 128;

/// What a controller limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Controller {
    /// Memory, the files of tmpfs and most kernel memory included.
    Memory,
    /// Processes and threads.
    Pids,
    /// CPU time.
    Cpu,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    /// The kernel's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// Limits on all processes of a group together. Absent means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CgroupLimits {
    /// Memory in bytes, swap not extra.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// CPU time in percent of one core.
    pub cpu_percent: Option<u32>,
}

/// A group could not be made, limited, joined or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The name is no plain file name.
    #[error("cgroup name {0:?} is not usable; use letters, digits, '-', '_' and '.', at most {MAX_NAME}")]
    Name(String),
    /// A file or directory of the hierarchy refused.
    #[error("could not {action} cgroup {path}; check that the node may still write there")]
    Refused {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Its processes did not die in time.
    #[error("processes of cgroup {0} did not end in time; one hangs in the kernel")]
    Busy(PathBuf),
}

/// A place in one hierarchy where groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    base: PathBuf,
    version: CgroupVersion,
    controllers: Vec<Controller>,
}

/// What this host gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cgroups {
    places: Vec<Place>,
}

/// One group: its directories, one per hierarchy. It can be stored and removed by a later process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    dirs: Vec<PathBuf>,
}

impl Cgroups {
    /// Finds by trying where groups can be made and what they limit. Never fails: nothing found is an answer.
    #[must_use]
    pub fn detect() -> Self {
        Self { places: detect::places() }
    }

    /// What a group of this host can limit.
    #[must_use]
    pub fn controllers(&self) -> Vec<Controller> {
        let mut all: Vec<_> = self.places.iter().flat_map(|place| place.controllers.iter().copied()).collect();
        all.sort_unstable();
        all
    }

    /// The same for a report.
    #[must_use]
    pub fn layer(&self) -> CgroupLayer {
        let controllers = self.controllers();
        let mut limiting = self.places.iter().filter(|place| !place.controllers.is_empty()).map(|place| place.version);
        let missing: Vec<_> = [Controller::Memory, Controller::Pids]
            .into_iter()
            .filter(|wanted| !controllers.contains(wanted))
            .map(Controller::name)
            .collect();
        CgroupLayer {
            version: limiting.next_back().unwrap_or_default(),
            controllers: controllers.iter().map(|controller| controller.name().to_owned()).collect(),
            reason: (!missing.is_empty()).then(|| {
                format!(
                    "no cgroup that this node may write limits {}; run it as root or in a service with Delegate=yes",
                    missing.join(" and ")
                )
            }),
        }
    }

    /// Makes a group and limits it, as far as there are controllers for it.
    ///
    /// # Errors
    /// When the name is unusable or taken, or the kernel refuses; nothing is left then.
    pub fn create(&self, name: &str, limits: &CgroupLimits) -> Result<Cgroup, CgroupError> {
        check_name(name)?;
        let mut group = Cgroup { dirs: Vec::new() };
        for place in &self.places {
            let dir = place.base.join(name);
            let made = fs::create_dir(&dir).map_err(refused("make", &dir));
            if made.is_ok() {
                group.dirs.push(dir.clone());
            }
            if let Err(error) = made.and_then(|()| place.limit(&dir, limits)) {
                let _kept = group.remove();
                return Err(error);
            }
        }
        Ok(group)
    }

    /// Groups with this prefix, from any process.
    #[must_use]
    pub fn leftovers(&self, prefix: &str) -> Vec<Cgroup> {
        let mut found = std::collections::BTreeMap::<String, Vec<PathBuf>>::new();
        for place in &self.places {
            for entry in fs::read_dir(&place.base).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(prefix) && check_name(&name).is_ok() && entry.path().is_dir() {
                    found.entry(name).or_default().push(entry.path());
                }
            }
        }
        found.into_values().map(|dirs| Cgroup { dirs }).collect()
    }
}

impl Place {
    fn limit(&self, dir: &Path, limits: &CgroupLimits) -> Result<(), CgroupError> {
        for controller in &self.controllers {
            match controller {
                Controller::Memory => self.limit_memory(dir, limits.memory_bytes)?,
                Controller::Pids => {
                    if let Some(pids) = limits.pids {
                        write(dir, "pids.max", &pids)?;
                    }
                }
                Controller::Cpu => self.limit_cpu(dir, limits.cpu_percent)?,
            }
        }
        Ok(())
    }

    fn limit_memory(&self, dir: &Path, bytes: Option<u64>) -> Result<(), CgroupError> {
        let Some(bytes) = bytes else { return Ok(()) };
        if self.version == CgroupVersion::V2 {
            write(dir, "memory.max", &bytes)?;
            // Older kernels have no group kill, hosts without swap no swap file; the limit itself holds without them.
            let _older = write(dir, "memory.oom.group", "1");
            let _no_swap = write(dir, "memory.swap.max", "0");
            return Ok(());
        }
        write(dir, "memory.limit_in_bytes", &bytes)?;
        let _no_swap = write(dir, "memory.memsw.limit_in_bytes", &bytes);
        Ok(())
    }

    fn limit_cpu(&self, dir: &Path, percent: Option<u32>) -> Result<(), CgroupError> {
        let Some(percent) = percent else { return Ok(()) };
        let quota = (u64::from(percent) * PERIOD_US / 100).max(1_000);
        if self.version == CgroupVersion::V2 {
            return write(dir, "cpu.max", &format!("{quota} {PERIOD_US}"));
        }
        write(dir, "cpu.cfs_period_us", &PERIOD_US)?;
        write(dir, "cpu.cfs_quota_us", &quota)
    }
}

impl Cgroup {
    /// Puts a process in; those it starts from now on follow.
    ///
    /// # Errors
    /// When the process is gone or the kernel refuses.
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        self.dirs.iter().try_for_each(|dir| write(dir, "cgroup.procs", &pid))
    }

    /// The directories, one per hierarchy.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Kills everything inside. Where the kernel has no `cgroup.kill`, forking is forbidden first.
    pub fn kill_all(&self) {
        if self.dirs.iter().any(|dir| fs::write(dir.join("cgroup.kill"), "1").is_ok()) {
            return;
        }
        for dir in &self.dirs {
            let _other_hierarchy = fs::write(dir.join("pids.max"), "0");
        }
        for id in self.members() {
            let _gone = id.signal(Signal::SIGKILL);
        }
    }

    /// Whether nothing lives in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members().is_empty()
    }

    fn members(&self) -> Vec<ProcessId> {
        let texts = self.dirs.iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
        texts.flat_map(|text| text.lines().filter_map(|pid| ProcessId::of(pid.parse().ok()?)).collect::<Vec<_>>()).collect()
    }

    /// Kills everything inside, again until nothing is left, and removes the group. One that is gone already is fine.
    ///
    /// # Errors
    /// [`CgroupError::Busy`] at the deadline, another when the kernel refuses for another reason.
    pub async fn destroy(&self, deadline: Deadline) -> Result<(), CgroupError> {
        loop {
            self.kill_all();
            match self.remove() {
                Err(CgroupError::Busy(_)) if !deadline.is_past() => tokio::time::sleep(LOOK_AGAIN).await,
                result => return result,
            }
        }
    }

    /// Removes the group if it is empty. One that is gone already is fine.
    ///
    /// # Errors
    /// [`CgroupError::Busy`] when something lives in it.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let mut result = Ok(());
        for dir in &self.dirs {
            match fs::remove_dir(dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => result = Err(CgroupError::Busy(dir.clone())),
                Err(error) => result = Err(refused("remove", dir)(error)),
            }
        }
        result
    }
}

fn check_name(name: &str) -> Result<(), CgroupError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(CgroupError::Name(name.chars().take(MAX_NAME).collect()));
    }
    Ok(())
}

fn refused(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::Refused { action, path, source }
}

fn write(dir: &Path, file: &str, value: &(impl ToString + ?Sized)) -> Result<(), CgroupError> {
    let path = dir.join(file);
    fs::write(&path, value.to_string()).map_err(refused("write to", &path))
}
