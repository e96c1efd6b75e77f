//! The templates on disk: each in a directory of its own, complete once its manifest is written.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nex_vmm::Snapshot;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};

use crate::spec::MachineSize;

/// Written last: a template with this file is complete.
const MANIFEST: &str = "template.json";

/// A working clone answers within this many boot times, and is given at least the minimum.
const CLONE_MIN: Duration = Duration::from_secs(5);
const CLONE_BOOTS: u32 = 10;

/// The templates of a node.
#[derive(Debug)]
pub(super) struct TemplateStore {
    dir: PathBuf,
    /// Locked while one is made, because the others wait for the same one.
    made: Mutex<BTreeMap<MachineSize, Arc<Template>>>,
}

/// A machine on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Template {
    pub(super) snapshot: Snapshot,
    /// Time from the start of its monitor until its guest was ready.
    pub(super) boot: Duration,
}

impl Template {
    /// Longest time of a working clone to answer.
    pub(super) fn answers_within(&self) -> Duration {
        (self.boot * CLONE_BOOTS).max(CLONE_MIN)
    }
}

impl TemplateStore {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, made: Mutex::new(BTreeMap::new()) }
    }

    /// The directory of all templates of a size.
    pub(super) fn of_size(&self, size: MachineSize) -> PathBuf {
        self.dir.join(format!("{}-{}", size.vcpus, size.memory_mib))
    }

    /// The directory of one template.
    pub(super) fn dir(&self, size: MachineSize, key: &str) -> PathBuf {
        self.of_size(size).join(key)
    }

    /// The templates in use, by size.
    pub(super) async fn lock(&self) -> MutexGuard<'_, BTreeMap<MachineSize, Arc<Template>>> {
        self.made.lock().await
    }
}

/// Makes a template's files read-only and readable by the monitors of its clones, then writes its manifest.
pub(super) fn save(template: &Template, dir: &Path) -> io::Result<()> {
    for file in [&template.snapshot.memory, &template.snapshot.state] {
        chown(file, Some(nix::unistd::geteuid().as_raw()), None)?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o444))?;
    }
    fs::write(dir.join(MANIFEST), serde_json::to_vec(template)?)
}

/// A template that an earlier node process made, if it is complete.
pub(super) fn load(dir: &Path) -> Option<Template> {
    let template: Template = serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
    let ours = |path: &PathBuf| path.parent() == Some(dir) && path.is_file();
    (ours(&template.snapshot.memory) && ours(&template.snapshot.state)).then_some(template)
}
