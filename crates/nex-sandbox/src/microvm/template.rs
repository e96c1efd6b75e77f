//! Templates: one machine of each size is booted, waits for an identity, and is written to disk there; all others are its clones.
//!
//! A snapshot is kept across node processes and used for as long as the kernel, the root image, the monitor and the machine are what they
//! were, and until the host boots anew: with another kernel or processor it might not wake up. There is no secret in it: it is taken before the guest knows who it is.
//! How long its machine took to boot is kept with it: that is the measure of how fast this host's machines are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nex_process::Deadline;
use nex_vmm::Snapshot;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::create::{Cradle, start};
use super::guest::Guest;
use super::{Shared, create};
use crate::tree::remove_tree;
use crate::{CreateError, MachineSize, SandboxId};

/// Says in a template's directory that all of it was written.
const MANIFEST: &str = "template.json";
/// Time in which a clone that works answers: this at least, or as many times what the boot took.
const CLONE_MIN: Duration = Duration::from_secs(5);
const CLONE_BOOTS: u32 = 10;
/// Longest time to ask the monitor for its version.
const VERSION: Duration = Duration::from_secs(5);

/// The templates of a node.
#[derive(Debug)]
pub(super) struct Templates {
    dir: PathBuf,
    /// Held while one is made: everybody else wants just that one.
    made: Mutex<BTreeMap<MachineSize, Arc<Template>>>,
}

/// A machine on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Template {
    pub(super) snapshot: Snapshot,
    /// Time from the start of its monitor until its guest was ready.
    boot: Duration,
}

impl Templates {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, made: Mutex::new(BTreeMap::new()) }
    }

    fn of_size(&self, size: MachineSize) -> PathBuf {
        self.dir.join(format!("{}-{}", size.vcpus, size.memory_mib))
    }

    fn dir(&self, size: MachineSize, key: &str) -> PathBuf {
        self.of_size(size).join(key)
    }
}

/// The snapshot of a size, made if need be.
pub(super) async fn get(shared: &Arc<Shared>, size: MachineSize, by: Deadline) -> Result<Arc<Template>, CreateError> {
    let mut made = by.bound(shared.templates.made.lock()).await?;
    if let Some(template) = made.get(&size) {
        return Ok(Arc::clone(template));
    }
    let dir = shared.templates.dir(size, &key(shared, size).await?);
    let template = match kept(&dir) {
        Some(template) => template,
        None => Box::pin(make(shared, size, &dir, by)).await?,
    };
    let template = Arc::new(template);
    made.insert(size, Arc::clone(&template));
    Ok(template)
}

/// Brings one machine to the point where it is given its identity; returns how long a machine takes to boot. A template that was kept
/// proves nothing: the host may be another.
pub(super) async fn prove(shared: &Arc<Shared>, size: MachineSize, by: Deadline) -> Result<Duration, CreateError> {
    if !shared.config.snapshots {
        let (cradle, boot) = boot(shared, size, "proof", by).await?;
        cradle.end().await;
        return Ok(boot);
    }
    let fresh = kept(&shared.templates.dir(size, &key(shared, size).await?)).is_none();
    match clone(shared, size, by).await {
        Err(error) if !fresh => {
            tracing::warn!(%error, "the template that was kept is of no use and is made anew");
            let mut made = shared.templates.made.lock().await;
            made.remove(&size);
            let dir = shared.templates.of_size(size);
            remove_tree(&dir).map_err(create::directory(&dir))?;
            drop(made);
            clone(shared, size, by).await
        }
        proved => proved,
    }
}

/// Makes one clone and throws it away; returns how long its template took to boot.
async fn clone(shared: &Arc<Shared>, size: MachineSize, by: Deadline) -> Result<Duration, CreateError> {
    let template = get(shared, size, by).await?;
    let by = by.within((template.boot * CLONE_BOOTS).max(CLONE_MIN));
    let cradle = start(shared, &throwaway("proof"), size, Some(&template.snapshot), by).await?;
    let met = async {
        let mut guest = Guest::meet_clone(cradle.machine(), shared.vmm.kind(), by).await?;
        Ok(guest.is_awake(by).await?)
    };
    let met = cradle.unless_ended(met).await;
    cradle.end().await;
    met.map(|()| template.boot)
}

async fn make(shared: &Arc<Shared>, size: MachineSize, dir: &Path, by: Deadline) -> Result<Template, CreateError> {
    // What is there was not finished: a finished one would be used.
    remove_tree(dir).map_err(create::directory(dir))?;
    fs::create_dir_all(dir).map_err(create::directory(dir))?;
    tracing::info!(%size, monitor = %shared.vmm.kind(), "making the template that machines of this size are cloned from");
    let (cradle, boot) = boot(shared, size, "template", by).await?;
    // The directory stays ours: uids are used again, and no monitor may write what all later guests are cloned from.
    let written = cradle.machine().snapshot(dir, by).await;
    cradle.end().await;
    let template = Template { snapshot: written?, boot };
    let snapshot = &template.snapshot;
    let owned = || {
        // The monitors of the clones read it, none may write it.
        for file in [&snapshot.memory, &snapshot.state] {
            std::os::unix::fs::chown(file, Some(nix::unistd::geteuid().as_raw()), None)?;
            fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
        }
        fs::write(dir.join(MANIFEST), serde_json::to_vec(&template)?)
    };
    owned().map_err(create::directory(dir))?;
    // Only now: where this monitor had failed, another would have gone on with its own.
    for old in fs::read_dir(shared.templates.of_size(size))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path != dir)
    {
        remove_tree(&old).map_err(create::directory(&old))?;
    }
    Ok(template)
}

/// A machine that is ready, and how long that took.
async fn boot(shared: &Arc<Shared>, size: MachineSize, name: &str, by: Deadline) -> Result<(Cradle, Duration), CreateError> {
    let begun = Instant::now();
    let cradle = start(shared, &throwaway(name), size, None, by).await?;
    // The guest is heard once: what it says is that it is ready, and then it waits.
    match cradle.unless_ended(Guest::meet(cradle.machine(), by)).await {
        Ok(_ready) => Ok((cradle, begun.elapsed())),
        Err(error) => {
            cradle.end().await;
            Err(error)
        }
    }
}

/// A name for a machine that no agent is ever in.
fn throwaway(what: &str) -> SandboxId {
    let name = format!("{what}-{:08x}", rand::random::<u32>());
    SandboxId::parse(name).unwrap_or_else(|refused| unreachable!("{refused}"))
}

/// Says since when the host runs.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Everything that makes one snapshot fit and another not.
async fn key(shared: &Shared, size: MachineSize) -> Result<String, CreateError> {
    let version = shared.vmm.version(Deadline::after(VERSION)).await?;
    let file = |path: &Path| fs::metadata(path).map(|found| (found.len(), found.mtime(), found.mtime_nsec(), found.ino()));
    let mut said = String::new();
    for path in [&shared.config.kernel, &shared.config.rootfs] {
        let found = file(path).map_err(create::directory(path))?;
        said += &format!("{path:?} {found:?} ");
    }
    said += &format!("{:?} {version} {size} {:?} {}", shared.vmm, shared.config.rates, env!("CARGO_PKG_VERSION"));
    let boot = fs::read(BOOT).map_err(create::directory(BOOT.as_ref()))?;
    Ok(digest(&[said.as_bytes(), &boot]))
}

fn digest(parts: &[&[u8]]) -> String {
    let hashed = parts.iter().fold(Sha256::new(), Digest::chain_update).finalize();
    hashed.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A template that an earlier node process made, if all of it is there.
fn kept(dir: &Path) -> Option<Template> {
    let template: Template = serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
    let ours = |path: &PathBuf| path.parent() == Some(dir) && path.is_file();
    (ours(&template.snapshot.memory) && ours(&template.snapshot.state)).then_some(template)
}
