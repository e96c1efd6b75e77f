//! Creates a microVM: starts or clones a machine and gives its guest an identity. A failing step removes what the earlier ones made.

use std::sync::Arc;

use nex_process::Deadline;
use nex_process::jail::MAX_LINE;

use super::guest::{self, Guest};
use super::pending;
use super::sandbox::MicroVm;
use super::shared::Shared;
use super::template;
use crate::error::CreateError;
use crate::spec::SandboxSpec;

pub(super) async fn create(shared: &Arc<Shared>, spec: SandboxSpec, by: Deadline) -> Result<MicroVm, CreateError> {
    if spec.identity.len() > MAX_LINE / 2 || spec.identity.contains(&b'\n') {
        return Err(CreateError::Identity(spec.id));
    }
    let size = spec.size.unwrap_or(shared.config.size);
    let template = if shared.config.snapshots { Some(template::get(shared, size, by).await?) } else { None };
    let pending = pending::start(shared, &spec.id, size, template.as_deref().map(|template| &template.snapshot), by).await?;
    let kind = shared.vmm.kind();
    let connected = async {
        let machine = pending.machine();
        let mut guest = match template {
            Some(_) => Guest::connect_clone(machine, kind, by).await?,
            None => Guest::connect(machine, by).await?,
        };
        tracing::debug!(id = %spec.id, "the guest is ready");
        guest.identify(machine, kind, guest::identity_of(shared, &spec.identity, pending.link())?, by).await?;
        tracing::debug!(id = %spec.id, "the guest has its identity");
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
