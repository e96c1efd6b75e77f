//! From an admitted request to a workload: its artifact, its specification, its driver. Used by the control API, by what the node starts by
//! itself, and by what it restores.

use std::sync::Arc;

use nex_process::Deadline;
use nex_protocol::deploy::{DeployRequest, DeployResponse, WorkloadType};
use nex_protocol::envelope::{ErrorCode, Failure};
use nex_protocol::id::{Namespace, WorkloadId};

use crate::artifacts::{Artifact, RemoteArtifact};
use crate::clock;
use crate::logs::Log;
use crate::policy::{self, Admitted};
use crate::registry::Reservation;
use crate::shared::Shared;
use crate::workload::launch_error::LaunchError;
use crate::workload::spec::WorkloadSpec;
use crate::workload::{self, Origin, Workload};

/// A workload that was admitted and has room.
pub(crate) struct AdmittedDeploy {
    /// Where it will live.
    pub(crate) namespace: Namespace,
    /// The request.
    pub(crate) request: DeployRequest,
    /// What the checks made of it.
    pub(crate) admitted: Admitted,
    /// Its room.
    pub(crate) reservation: Reservation,
}

/// A workload that runs, and what its deployer is told.
pub(crate) struct Started {
    /// The workload.
    pub(crate) workload: Arc<Workload>,
    /// The answer.
    pub(crate) response: DeployResponse,
}

/// A workload of the journal.
pub(crate) struct Restored {
    /// Its id.
    pub(crate) id: WorkloadId,
    /// When it was deployed, seconds since 1970.
    pub(crate) deployed_at: i64,
    /// Its artifact, which may have to be fetched again.
    pub(crate) artifact: Artifact,
}

/// Fetches the artifact, starts the workload and waits until it runs.
pub(crate) async fn fetch_and_deploy(
    shared: &Shared,
    mut deploy: AdmittedDeploy,
    by: Deadline,
) -> Result<DeployResponse, Failure> {
    let AdmittedDeploy { request, admitted, reservation, .. } = &mut deploy;
    let offer = look_up(shared, request, admitted, reservation, by).await?;
    let artifact = shared.drivers.launcher.artifacts.take(offer, by).await?;
    Ok(self::deploy(shared, deploy, artifact, by).await?.response)
}

/// Starts a workload whose artifact is there and waits until it runs.
pub(crate) async fn deploy(
    shared: &Shared,
    deploy: AdmittedDeploy,
    artifact: Artifact,
    by: Deadline,
) -> Result<Started, Failure> {
    policy::check_digest(deploy.admitted.signed_digest.as_ref(), &artifact.digest)?;
    let id = WorkloadId::new(clock::unix_seconds_u32());
    let (spec, reservation) = specification(deploy, id, clock::unix_seconds(), artifact);
    let response = DeployResponse::started(&spec.id, &spec.claims.iss, &spec.name);
    let (workload, first) = workload::start(spec, Origin::Deployed(by), reservation, &shared.drivers, |spec| log(shared, spec));
    first.await.map_err(|_dropped| LaunchError::NodeStopping).flatten()?;
    let in_use = shared.registry.all().iter().map(|workload| workload.spec.artifact.digest).collect();
    shared.drivers.launcher.artifacts.prune(shared.config.artifact_cache_bytes, &in_use);
    Ok(Started { workload, response })
}

/// Hands a workload of the journal to its driver, which tries until it runs.
pub(crate) fn restore(shared: &Shared, deploy: AdmittedDeploy, restored: Restored) {
    let Restored { id, deployed_at, artifact } = restored;
    let (spec, reservation) = specification(deploy, id, deployed_at, artifact);
    // Nobody waits for its first start.
    drop(workload::start(spec, Origin::Restored, reservation, &shared.drivers, |spec| log(shared, spec)));
}

fn specification(deploy: AdmittedDeploy, id: WorkloadId, deployed_at: i64, artifact: Artifact) -> (WorkloadSpec, Reservation) {
    let AdmittedDeploy { namespace, request, admitted, reservation } = deploy;
    let spec = WorkloadSpec {
        id,
        namespace,
        name: admitted.name,
        kind: admitted.kind,
        description: request.description.clone().unwrap_or_default(),
        claims: admitted.claims,
        artifact,
        argv: request.argv.clone().unwrap_or_default(),
        environment: admitted.environment,
        // A function has no exit of its own: losing its agent is always a failure to mend.
        restarts: request.essential.unwrap_or_default() || admitted.kind != WorkloadType::Native,
        triggers: admitted.triggers,
        trigger_connection: request.trigger_connection.clone(),
        host_services: request.host_services.clone(),
        machine_class: request.machine_class.clone(),
        limits: admitted.limits,
        deployed_at,
        request,
    };
    (spec, reservation)
}

fn log(shared: &Shared, spec: &WorkloadSpec) -> Log {
    Log::new(shared.outbox.clone(), &shared.identity.node, &spec.namespace, &spec.name, &spec.id)
}

/// The artifact as the object store has it, refused before a byte of it is fetched if it is too large or not the one signed for.
pub(crate) async fn look_up(
    shared: &Shared,
    request: &DeployRequest,
    admitted: &Admitted,
    reservation: &mut Reservation,
    by: Deadline,
) -> Result<RemoteArtifact, Failure> {
    let offer = RemoteArtifact::look_up(&shared.nats, &admitted.location, request.jsdomain.as_deref(), by).await?;
    if offer.bytes() == 0 {
        return Err(Failure::new(
            ErrorCode::BadRequest,
            format!("Invalid deploy request: the artifact {} is empty", admitted.location),
        ));
    }
    reservation.reserve_bytes(offer.bytes())?;
    if let Some(promised) = offer.digest() {
        policy::check_digest(admitted.signed_digest.as_ref(), &promised)?;
    }
    Ok(offer)
}
