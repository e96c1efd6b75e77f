//! Templates: one machine of each size boots and waits for an identity; its snapshot is what all other machines are cloned from.
//!
//! A snapshot is reused across node processes while the kernel, the root image, the monitor and the machine's size stay the same, and
//! until the host reboots: under another kernel or processor it might not resume. It contains no secret, because it is taken before the
//! guest has an identity. The boot time is stored with it and tells how fast machines are on this host.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nex_process::Deadline;
use sha2::{Digest, Sha256};

use super::guest::Guest;
use super::pending::{PendingMachine, start};
use super::shared::Shared;
use super::store::{self, Template};
use crate::error::CreateError;
use crate::host::directory;
use crate::id::SandboxId;
use crate::spec::MachineSize;
use crate::tree::remove_tree;

/// Longest time to ask the monitor for its version.
const VERSION: Duration = Duration::from_secs(5);

/// The template of a size, made if there is none.
pub(super) async fn get(shared: &Arc<Shared>, size: MachineSize, by: Deadline) -> Result<Arc<Template>, CreateError> {
    let mut made = by.bound(shared.templates.lock()).await?;
    if let Some(template) = made.get(&size) {
        return Ok(Arc::clone(template));
    }
    let dir = shared.templates.dir(size, &key(shared, size).await?);
    let template = match store::load(&dir) {
        Some(template) => template,
        None => Box::pin(make(shared, size, &dir, by)).await?,
    };
    let template = Arc::new(template);
    made.insert(size, Arc::clone(&template));
    Ok(template)
}

/// Boots or clones one machine up to where it would get its identity; returns how long a machine takes to boot. A stored template is
/// tried too: it may come from another host.
pub(super) async fn probe(shared: &Arc<Shared>, size: MachineSize, by: Deadline) -> Result<Duration, CreateError> {
    if !shared.config.snapshots {
        let (pending, boot) = boot(shared, size, "probe", by).await?;
        pending.end().await;
        return Ok(boot);
    }
    let fresh = store::load(&shared.templates.dir(size, &key(shared, size).await?)).is_none();
    match clone(shared, size, by).await {
        Err(error) if !fresh => {
            tracing::warn!(%error, "the stored template does not work and is made again");
            let mut made = shared.templates.lock().await;
            made.remove(&size);
            let dir = shared.templates.of_size(size);
            remove_tree(&dir).map_err(directory(&dir))?;
            drop(made);
            clone(shared, size, by).await
        }
        probed => probed,
    }
}

/// How long a machine took to boot for the template that is on disk, if there is one.
pub(super) async fn stored(shared: &Shared, size: MachineSize) -> Option<Duration> {
    let key = key(shared, size).await.ok()?;
    store::load(&shared.templates.dir(size, &key)).map(|template| template.boot)
}

/// Makes one clone and discards it; returns how long its template took to boot.
async fn clone(shared: &Arc<Shared>, size: MachineSize, by: Deadline) -> Result<Duration, CreateError> {
    let template = get(shared, size, by).await?;
    let by = by.within(template.answers_within());
    let pending = start(shared, &temporary_id("probe"), size, Some(&template.snapshot), by).await?;
    let connected = async {
        let mut guest = Guest::connect_clone(pending.machine(), shared.vmm.kind(), by).await?;
        Ok(guest.check_alive(by).await?)
    };
    let connected = pending.explain_failure(connected).await;
    pending.end().await;
    connected.map(|()| template.boot)
}

async fn make(shared: &Arc<Shared>, size: MachineSize, dir: &Path, by: Deadline) -> Result<Template, CreateError> {
    // An earlier attempt may have left an unfinished template.
    remove_tree(dir).map_err(directory(dir))?;
    fs::create_dir_all(dir).map_err(directory(dir))?;
    tracing::info!(%size, monitor = %shared.vmm.kind(), "making the template that machines of this size are cloned from");
    let (pending, boot) = boot(shared, size, "template", by).await?;
    // The directory stays the node's: uids are reused, and no monitor may write what later guests are cloned from.
    let written = pending.machine().snapshot(dir, by).await;
    pending.end().await;
    let template = Template { snapshot: written?, boot };
    store::save(&template, dir).map_err(directory(dir))?;
    // Only after success: had this one failed, an older template might still serve another monitor.
    for old in fs::read_dir(shared.templates.of_size(size))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path != dir)
    {
        remove_tree(&old).map_err(directory(&old))?;
    }
    Ok(template)
}

/// Boots a machine until its guest is ready; returns it and the time that took.
async fn boot(
    shared: &Arc<Shared>,
    size: MachineSize,
    name: &str,
    by: Deadline,
) -> Result<(PendingMachine, Duration), CreateError> {
    let begun = Instant::now();
    let pending = start(shared, &temporary_id(name), size, None, by).await?;
    // The guest says once that it is ready, then waits.
    match pending.explain_failure(Guest::connect(pending.machine(), by)).await {
        Ok(_ready) => Ok((pending, begun.elapsed())),
        Err(error) => {
            pending.end().await;
            Err(error)
        }
    }
}

/// A name for a machine that never holds an agent.
fn temporary_id(what: &str) -> SandboxId {
    let name = format!("{what}-{:08x}", rand::random::<u32>());
    SandboxId::parse(name).unwrap_or_else(|refused| unreachable!("{refused}"))
}

/// Changes with every boot of the host.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Hashes everything that a snapshot depends on.
async fn key(shared: &Shared, size: MachineSize) -> Result<String, CreateError> {
    let version = shared.vmm.version(Deadline::after(VERSION)).await?;
    let file = |path: &Path| fs::metadata(path).map(|found| (found.len(), found.mtime(), found.mtime_nsec(), found.ino()));
    let mut inputs = String::new();
    for path in [&shared.config.kernel, &shared.config.rootfs] {
        let found = file(path).map_err(directory(path))?;
        inputs += &format!("{path:?} {found:?} ");
    }
    inputs += &format!("{:?} {version} {size} {:?} {}", shared.vmm, shared.config.rates, env!("CARGO_PKG_VERSION"));
    let boot = fs::read(BOOT).map_err(directory(BOOT.as_ref()))?;
    Ok(digest(&[inputs.as_bytes(), &boot]))
}

fn digest(parts: &[&[u8]]) -> String {
    let hashed = parts.iter().fold(Sha256::new(), Digest::chain_update).finalize();
    hashed.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
