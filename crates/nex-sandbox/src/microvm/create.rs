//! Creates a microVM: starts or clones a machine and gives its guest an identity. A failing step removes what the earlier ones made.
//!
//! A clone that does not answer is replaced by a fresh one: now and then a guest does not resume on an emulated processor.

use std::sync::Arc;

use nex_process::jail::MAX_LINE;
use nex_process::{Deadline, crash_point};

use super::guest::{self, Guest};
use super::pending;
use super::sandbox::{MicroVm, SLOT, empty_metadata};
use super::shared::Shared;
use super::store::Template;
use super::template;
use crate::error::{CreateError, GuestError};
use crate::spec::{MachineSize, SandboxSpec};

/// Clones made for one sandbox, all but the last of them mute.
const CLONES: u32 = 3;

pub(super) async fn create(shared: &Arc<Shared>, spec: SandboxSpec, by: Deadline) -> Result<MicroVm, CreateError> {
    if spec.identity.len() > MAX_LINE / 2 || spec.identity.contains(&b'\n') {
        return Err(CreateError::Identity(spec.id));
    }
    let size = spec.size.unwrap_or(shared.config.size);
    if !shared.config.snapshots {
        return start(shared, &spec, size, None, by).await;
    }
    let template = template::get(shared, size, by).await?;
    let mut clones = 1;
    loop {
        // Half of the time at most, so that another clone has as much.
        let limit = if clones < CLONES { by.within(template.answers_within().min(by.remaining() / 2)) } else { by };
        match Box::pin(start(shared, &spec, size, Some(&template), limit)).await {
            Err(error) if is_mute(&error) && clones < CLONES && !by.is_past() => {
                tracing::warn!(id = %spec.id, %error, "a clone does not answer and is replaced by a fresh one");
                clones += 1;
            }
            done => return done,
        }
    }
}

/// Makes one machine and gives its guest the identity.
async fn start(
    shared: &Arc<Shared>,
    spec: &SandboxSpec,
    size: MachineSize,
    template: Option<&Template>,
    by: Deadline,
) -> Result<MicroVm, CreateError> {
    let pending = pending::start(shared, &spec.id, size, template.map(|template| &template.snapshot), by).await?;
    let kind = shared.vmm.kind();
    let connected = async {
        let machine = pending.machine();
        let mut guest = match template {
            Some(_) => Guest::connect_clone(machine, kind, by).await?,
            None => Guest::connect(machine, by).await?,
        };
        tracing::debug!(id = %spec.id, "the guest is ready");
        let root = match &spec.image {
            Some(image) => {
                machine.swap_drive(SLOT.into(), image, by).await?;
                Some(SLOT)
            }
            None => None,
        };
        guest.identify(machine, kind, guest::identity_of(shared, &spec.identity, pending.link(), root)?, by).await?;
        tracing::debug!(id = %spec.id, "the guest has its identity");
        crash_point("machine: its guest has its identity");
        if root.is_some() {
            // Nothing is attached later, which would empty it for a workload that is a file.
            empty_metadata(machine, kind, by).await?;
        }
        Ok(guest)
    };
    match pending.explain_failure(connected).await {
        Ok(guest) => Ok(pending.into_sandbox(guest)),
        Err(error) => {
            pending.end().await;
            Err(error)
        }
    }
}

/// Whether the machine runs, and its guest says nothing.
fn is_mute(error: &CreateError) -> bool {
    let CreateError::NotUp { source, .. } = error else { return false };
    matches!(**source, CreateError::Guest(GuestError::Late) | CreateError::Vmm(nex_vmm::VmmError::Late { .. }))
}
