//! From an admitted request to a workload: its artifact, its specification, its driver. Used by the control API, by what the node starts by
//! itself, and by what it restores.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nex_process::Deadline;
use nex_protocol::deploy::{DeployRequest, DeployResponse};
use nex_protocol::envelope::chain;
use nex_protocol::id::{Namespace, WorkloadId};
use tokio::sync::oneshot;

use crate::artifacts::{Artifact, FetchError, RemoteArtifact};
use crate::clock;
use crate::config::{LiveConfig, NodeConfig};
use crate::identity::Identity;
use crate::issuers::Issuers;
use crate::logs::Log;
use crate::outbox::Outbox;
use crate::policy::{self, Admitted, DeployRefusal};
use crate::quota::DeployRates;
use crate::registry::{NoRoom, Reservation};
use crate::workload::command::FirstStart;
use crate::workload::files::Renewal;
use crate::workload::launch_error::LaunchError;
use crate::workload::runtime::DriverServices;
use crate::workload::secrets::Wanted;
use crate::workload::spec::WorkloadSpec;
use crate::workload::{self, Before, Origin, Workload, Workloads};

/// Longest time to delete what a workload has left on its NATS.
const RETIREMENT: Duration = Duration::from_secs(5);

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

/// The list of issuers cannot be read, so that it is not known who may deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node cannot read its list of issuers, so that nobody may deploy; next: its operator finds why in the node's log")]
pub(crate) struct UnreadableIssuers;

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

/// A workload that is being started, and what its deployer is told when it runs.
pub(crate) struct Started {
    /// The workload.
    pub(crate) workload: Arc<Workload>,
    /// The answer.
    pub(crate) response: DeployResponse,
    first: oneshot::Receiver<FirstStart>,
}

/// A workload of the journal.
pub(crate) struct Restored {
    /// Its id.
    pub(crate) id: WorkloadId,
    /// When it was deployed, seconds since 1970.
    pub(crate) deployed_at: i64,
    /// Its artifact, which may have to be fetched again.
    pub(crate) artifact: Artifact,
    /// What an earlier process knew of it, and left.
    pub(crate) before: Before,
}

/// Takes admitted workloads into the node.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The node's keys.
    pub(crate) identity: Arc<Identity>,
    /// What it takes.
    pub(crate) config: LiveConfig,
    /// Where its list of issuers lies.
    pub(crate) state: PathBuf,
    /// The node's workloads.
    pub(crate) registry: Workloads,
    /// What their drivers share.
    pub(crate) drivers: Arc<DriverServices>,
    /// How many were deployed lately.
    pub(crate) rates: DeployRates,
    /// Where their log lines go.
    pub(crate) outbox: Outbox,
}

impl Admission {
    /// The configuration, with the keys of the state directory's list as they are now.
    ///
    /// # Errors
    /// [`UnreadableIssuers`]; the log says why.
    pub(crate) async fn config_with_issuers(&self) -> Result<Arc<NodeConfig>, UnreadableIssuers> {
        let (config, state) = (self.config.now(), self.state.clone());
        match tokio::task::spawn_blocking(move || Issuers::read(&state)).await {
            Ok(Ok(issuers)) if issuers.iter().next().is_none() => Ok(config),
            Ok(Ok(issuers)) => Ok(Arc::new(issuers.besides(&config))),
            Ok(Err(error)) => {
                tracing::error!(error = %chain(&error), "nobody may deploy");
                Err(UnreadableIssuers)
            }
            Err(_cancelled) => Err(UnreadableIssuers),
        }
    }

    /// Takes a workload in: asks for its artifact, has its token `spent`, fetches the artifact, and begins to start it. A token is not
    /// used up by an artifact that is not there.
    pub(crate) async fn begin<E: From<AdmissionError>>(
        &self,
        mut deploy: AdmittedDeploy,
        spent: impl Future<Output = Result<(), E>>,
        by: Deadline,
    ) -> Result<Started, E> {
        let (bucket, launcher) = (deploy.admitted.location.bucket.clone(), &self.drivers.launcher);
        let offer = Box::pin(launcher.connections.permitted(&bucket, self.look_up(&mut deploy, by))).await?;
        spent.await?;
        let taken = async { Ok::<_, AdmissionError>(launcher.artifacts.take(offer, by).await?) };
        let artifact = Box::pin(launcher.connections.permitted(&bucket, taken)).await?;
        Ok(Box::pin(self.start_new(deploy, artifact, by)).await?)
    }

    async fn start_new(&self, deploy: AdmittedDeploy, artifact: Artifact, by: Deadline) -> Result<Started, AdmissionError> {
        policy::check_digest(deploy.admitted.signed_digest.as_ref(), &artifact.digest)?;
        let id = WorkloadId::new(clock::unix_seconds_u32());
        let (spec, reservation) = specification(deploy, id, clock::unix_seconds(), artifact);
        let response = DeployResponse::started(&spec.id, &spec.claims.iss, &spec.name);
        Box::pin(self.drivers.launcher.durable.bind(&spec, by)).await.map_err(LaunchError::Durable)?;
        let (workload, first) = self.start(spec, Origin::Deployed(by), reservation);
        let in_use = self.registry.all().iter().map(|workload| workload.spec.artifact.digest).collect();
        self.drivers.launcher.artifacts.prune(self.config.now().artifact_cache_bytes, &in_use);
        Ok(Started { workload, response, first })
    }

    /// Waits until it runs; of one that does not nothing is left.
    pub(crate) async fn runs(&self, started: &mut Started) -> Result<(), LaunchError> {
        let Started { workload, first, .. } = started;
        let failure = match first.await.map_err(|_dropped| LaunchError::NodeStopping).flatten() {
            Ok(()) => return Ok(()),
            Err(LaunchError::Unhealthy(why)) => LaunchError::Unhealthy(why + &workload.tail.final_text()),
            Err(failure) => failure,
        };
        Box::pin(self.retire(&workload.spec)).await;
        Err(failure)
    }

    /// Deletes what a workload that is gone for good has left on its NATS, but what other copies share.
    pub(crate) async fn retire(&self, spec: &WorkloadSpec) {
        let is_copy = |other: &WorkloadSpec| other.id != spec.id && other.namespace == spec.namespace && other.name == spec.name;
        let copies: Vec<_> = self.registry.all().iter().map(|other| Arc::clone(&other.spec)).filter(|it| is_copy(it)).collect();
        Box::pin(self.drivers.launcher.durable.retire(spec, &copies, Deadline::after(RETIREMENT))).await;
    }

    /// Hands a workload of the journal to its driver, which takes over what is left running of it, or tries until it runs.
    pub(crate) fn restore(&self, deploy: AdmittedDeploy, restored: Restored) {
        let Restored { id, deployed_at, artifact, before } = restored;
        let (spec, reservation) = specification(deploy, id, deployed_at, artifact);
        // Nobody waits for its first start.
        drop(self.start(spec, Origin::Restored(Box::new(before)), reservation));
    }

    /// The artifact as the object store has it, refused before a byte of it is fetched if it is too large or not the one signed for.
    async fn look_up(&self, deploy: &mut AdmittedDeploy, by: Deadline) -> Result<RemoteArtifact, AdmissionError> {
        let AdmittedDeploy { request, admitted, reservation, .. } = deploy;
        let (nats, domain) = (&self.drivers.launcher.nats, request.jsdomain.as_deref());
        let offer = RemoteArtifact::look_up(nats, &admitted.location, domain, by).await?;
        if offer.bytes() == 0 {
            return Err(DeployRefusal::EmptyArtifact(admitted.location.clone()).into());
        }
        reservation.reserve_bytes(&self.config.now().quotas, offer.bytes())?;
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
        let log = |spec: &WorkloadSpec| {
            let places = (self.outbox.clone(), self.drivers.history.clone());
            let share = self.drivers.log_rates.share(&self.config.now().quotas, &spec.charge, Instant::now());
            Log::new(places, &self.identity.node, (&spec.namespace, &spec.name, &spec.id)).within(share)
        };
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
    let mut charge = reservation.charge();
    charge.demand.artifact_bytes = artifact.bytes;
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
        secrets: Wanted::new(admitted.secrets),
        renewal: Renewal::default(),
        policy: admitted.policy,
        triggers: admitted.triggers.subjects,
        durable: admitted.triggers.durable.into_iter().map(Arc::new).collect(),
        trigger_connection: request.trigger_connection.clone(),
        host_services: request.host_services.clone(),
        machine_class: request.machine_class.clone(),
        isolation: admitted.isolation,
        limits: admitted.limits,
        deployed_at,
        charge,
        request,
    };
    (spec, reservation)
}
