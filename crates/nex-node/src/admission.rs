//! From an admitted request to a workload: its artifact, its specification, its driver. Used by the control API, by what the node starts by
//! itself, and by what it restores.

use std::sync::Arc;

use nex_process::Deadline;
use nex_protocol::deploy::{DeployRequest, DeployResponse, WorkloadType};
use nex_protocol::id::{Namespace, WorkloadId};
use tokio::sync::oneshot;

use crate::artifacts::{Artifact, FetchError, RemoteArtifact};
use crate::clock;
use crate::config::NodeConfig;
use crate::identity::Identity;
use crate::logs::Log;
use crate::outbox::Outbox;
use crate::policy::{self, Admitted, DeployRefusal};
use crate::registry::{NoRoom, Reservation};
use crate::workload::command::FirstStart;
use crate::workload::launch::LeftRunning;
use crate::workload::launch_error::LaunchError;
use crate::workload::runtime::DriverServices;
use crate::workload::spec::WorkloadSpec;
use crate::workload::{self, Origin, Workload, Workloads};

/// Why a workload was not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmissionError {
    /// It may not be.
    #[error(transparent)]
    Refused(#[from] DeployRefusal),
    /// There is no room for it.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// Its artifact cannot be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It does not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// A workload that was admitted and has room.
pub(crate) struct AdmittedDeploy {
    /// Where it will live.
    pub(crate) namespace: Namespace,
    /// The request.
    pub(crate) request: DeployRequest,
    /// What the checks made of it.
    pub(crate) admitted: Admitted,
    /// Its room.
    pub(crate) reservation: Reservation<Workload>,
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
    /// What an earlier process left running of it.
    pub(crate) left: Option<LeftRunning>,
}

/// Takes admitted workloads into the node.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The node's keys.
    pub(crate) identity: Arc<Identity>,
    /// What it takes.
    pub(crate) config: Arc<NodeConfig>,
    /// The node's workloads.
    pub(crate) registry: Workloads,
    /// What their drivers share.
    pub(crate) drivers: Arc<DriverServices>,
    /// Where their log lines go.
    pub(crate) outbox: Outbox,
}

impl Admission {
    /// Fetches the artifact, starts the workload and waits until it runs.
    pub(crate) async fn fetch_and_deploy(
        &self,
        mut deploy: AdmittedDeploy,
        by: Deadline,
    ) -> Result<DeployResponse, AdmissionError> {
        let AdmittedDeploy { request, admitted, reservation, .. } = &mut deploy;
        let offer = self.look_up(request, admitted, reservation, by).await?;
        let artifact = self.drivers.launcher.artifacts.take(offer, by).await?;
        Ok(self.deploy(deploy, artifact, by).await?.response)
    }

    /// Starts a workload whose artifact is there and waits until it runs.
    pub(crate) async fn deploy(
        &self,
        deploy: AdmittedDeploy,
        artifact: Artifact,
        by: Deadline,
    ) -> Result<Started, AdmissionError> {
        policy::check_digest(deploy.admitted.signed_digest.as_ref(), &artifact.digest)?;
        let id = WorkloadId::new(clock::unix_seconds_u32());
        let (spec, reservation) = specification(deploy, id, clock::unix_seconds(), artifact);
        let response = DeployResponse::started(&spec.id, &spec.claims.iss, &spec.name);
        let (workload, first) = self.start(spec, Origin::Deployed(by), reservation);
        first.await.map_err(|_dropped| LaunchError::NodeStopping).flatten()?;
        let in_use = self.registry.all().iter().map(|workload| workload.spec.artifact.digest).collect();
        self.drivers.launcher.artifacts.prune(self.config.artifact_cache_bytes, &in_use);
        Ok(Started { workload, response })
    }

    /// Hands a workload of the journal to its driver, which takes over what is left running of it, or tries until it runs.
    pub(crate) fn restore(&self, deploy: AdmittedDeploy, restored: Restored) {
        let Restored { id, deployed_at, artifact, left } = restored;
        let (spec, reservation) = specification(deploy, id, deployed_at, artifact);
        // Nobody waits for its first start.
        drop(self.start(spec, Origin::Restored(left), reservation));
    }

    /// The artifact as the object store has it, refused before a byte of it is fetched if it is too large or not the one signed for.
    pub(crate) async fn look_up(
        &self,
        request: &DeployRequest,
        admitted: &Admitted,
        reservation: &mut Reservation<Workload>,
        by: Deadline,
    ) -> Result<RemoteArtifact, AdmissionError> {
        let (nats, domain) = (&self.drivers.launcher.nats, request.jsdomain.as_deref());
        let offer = RemoteArtifact::look_up(nats, &admitted.location, domain, by).await?;
        if offer.bytes() == 0 {
            return Err(DeployRefusal::EmptyArtifact(admitted.location.clone()).into());
        }
        reservation.reserve_bytes(offer.bytes())?;
        if let Some(promised) = offer.digest() {
            policy::check_digest(admitted.signed_digest.as_ref(), &promised)?;
        }
        Ok(offer)
    }

    fn start(
        &self,
        spec: WorkloadSpec,
        origin: Origin,
        reservation: Reservation<Workload>,
    ) -> (Arc<Workload>, oneshot::Receiver<FirstStart>) {
        let log = |spec: &WorkloadSpec| Log::new(self.outbox.clone(), &self.identity.node, &spec.namespace, &spec.name, &spec.id);
        workload::start(spec, origin, reservation, &self.drivers, log)
    }
}

fn specification(
    deploy: AdmittedDeploy,
    id: WorkloadId,
    deployed_at: i64,
    artifact: Artifact,
) -> (WorkloadSpec, Reservation<Workload>) {
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
