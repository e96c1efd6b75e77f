//! DEPLOY: checks, artifact, start; then the reply. The workload is in the journal before its deployer hears of it.

use std::sync::Arc;

use nex_process::{Deadline, Elapsed};
use nex_protocol::deploy::{DeployRequest, DeployResponse, WorkloadType};
use nex_protocol::envelope::{ErrorCode, Failure};
use nex_protocol::id::{Namespace, WorkloadId};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::lanes::{Share, Shares};
use super::parse;
use crate::artifacts::{Artifact, Offer};
use crate::clock;
use crate::policy::{self, Admitted};
use crate::registry::Room;
use crate::shared::Shared;
use crate::workload::driver;
use crate::workload::spec::WorkloadSpec;

/// Deploys worked on at once: in all, of one namespace, of one issuer. A namespace is what NATS permissions bind a user to; issuers
/// are made as fast as keys are.
const AT_ONCE: usize = 64;
const OF_A_NAMESPACE: usize = 32;
const OF_AN_ISSUER: usize = 16;

/// Who is deploying right now.
#[derive(Debug)]
pub(super) struct Tenants {
    all: Semaphore,
    namespaces: Shares,
    issuers: Shares,
}

impl Tenants {
    /// Nobody is.
    pub(super) fn new() -> Self {
        Self { all: Semaphore::new(AT_ONCE), namespaces: Shares::new(OF_A_NAMESPACE), issuers: Shares::new(OF_AN_ISSUER) }
    }

    /// Waits for a turn; who has many deploys under way waits for those and keeps nobody else waiting.
    async fn turn(&self, namespace: &Namespace, issuer: &str, by: Deadline) -> Result<Turn<'_>, Failure> {
        let turn = async {
            let issuer = self.issuers.take(issuer).await;
            let namespace = self.namespaces.take(namespace.as_str()).await;
            Turn { _issuer: issuer, _namespace: namespace, _permit: self.all.acquire().await.ok() }
        };
        by.bound(turn).await.map_err(|Elapsed| {
            Failure::new(ErrorCode::Unavailable, "the node had no time for this deploy: too many are under way; try again")
        })
    }
}

/// A deploy's turn; the next one has it when this is dropped.
struct Turn<'a> {
    _issuer: Share,
    _namespace: Share,
    _permit: Option<SemaphorePermit<'a>>,
}

/// Deploys a workload into a namespace.
pub(super) async fn deploy(
    shared: &Arc<Shared>,
    tenants: &Tenants,
    namespace: &str,
    body: &[u8],
    by: Deadline,
) -> Result<DeployResponse, Failure> {
    if shared.is_lame_duck() {
        return Err(Failure::new(ErrorCode::Unavailable, "Node is in lame duck mode. Workload deploy request denied"));
    }
    // A full node says so first, as 0.2.7 does; room is taken when it is this deploy's turn.
    drop(shared.registry.reserve()?);
    let request: DeployRequest = parse("deploy", body)?;
    let namespace: Namespace =
        namespace.parse().map_err(|error| Failure::new(ErrorCode::BadRequest, format!("Invalid deploy request: {error}")))?;
    let now = clock::unix_seconds();
    let admitted = policy::admit(&request, &shared.config, &shared.identity.xkey, now)?;
    let _turn = tenants.turn(&namespace, &admitted.claims.iss, by).await?;
    let room = shared.registry.reserve()?;
    let spent = shared.launcher.journal.spend_token(&admitted.claims.jti, admitted.spent_until, now);
    if !spent.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))? {
        return Err(Failure::new(
            ErrorCode::Denied,
            "Invalid deploy request: this workload JWT was used before; sign a new one for each deploy",
        ));
    }
    // Boxed: a deploy's future is large, and one of many requests.
    Box::pin(run(shared, Order { namespace, request, admitted, room, earlier: None }, by)).await
}

/// A workload that was admitted and has room.
pub(crate) struct Order {
    /// Where it will live.
    pub(crate) namespace: Namespace,
    /// The request.
    pub(crate) request: DeployRequest,
    /// What the checks made of it.
    pub(crate) admitted: Admitted,
    /// Its room.
    pub(crate) room: Room,
    /// The id it ran under before, and its artifact if that is still in the cache.
    pub(crate) earlier: Option<(WorkloadId, Option<Artifact>)>,
}

/// Starts a workload and waits until it runs.
pub(crate) async fn run(shared: &Arc<Shared>, order: Order, by: Deadline) -> Result<DeployResponse, Failure> {
    let Order { namespace, request, admitted, mut room, earlier } = order;
    let (id, cached) = earlier.map_or((None, None), |(id, artifact)| (Some(id), artifact));
    let artifact = match cached {
        Some(artifact) => {
            room.reserve_bytes(artifact.bytes)?;
            artifact
        }
        None => fetch(shared, &request, &admitted, &mut room, by).await?,
    };
    policy::check_digest(admitted.signed_digest.as_ref(), &artifact.digest)?;
    let spec = WorkloadSpec {
        id: id.unwrap_or_else(|| WorkloadId::new(clock::unix_seconds_u32())),
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
        deployed_at: clock::unix_seconds(),
        request,
    };
    let answer =
        DeployResponse { started: true, id: spec.id.to_string(), issuer: spec.claims.iss.clone(), name: spec.name.to_string() };
    let (registry, journal, id) = (shared.registry.clone(), shared.launcher.journal.clone(), spec.id.clone());
    let (workload, start) = driver::prepare(spec, &shared.launcher);
    room.fill(workload);
    let first = start.go(Box::new(move || {
        registry.remove(&id);
        if let Err(error) = journal.remove_workload(&id) {
            tracing::error!(workload_id = %id, %error, "an ended workload stays in the journal");
        }
    }));
    first.await.map_err(|_dropped| Failure::new(ErrorCode::Unavailable, "the node is stopping"))??;
    let in_use = shared.registry.all().iter().map(|workload| workload.spec.artifact.digest).collect();
    shared.launcher.artifacts.prune(shared.config.artifact_cache_bytes, &in_use);
    Ok(answer)
}

/// The artifact from the object store, refused before a byte of it is fetched if it is too large or not the one signed for.
async fn fetch(
    shared: &Shared,
    request: &DeployRequest,
    admitted: &Admitted,
    room: &mut Room,
    by: Deadline,
) -> Result<Artifact, Failure> {
    let offer = Offer::look_up(&shared.nats, &admitted.location, request.jsdomain.as_deref(), by).await?;
    if offer.bytes() == 0 {
        return Err(Failure::new(
            ErrorCode::BadRequest,
            format!("Invalid deploy request: the artifact {} is empty", admitted.location),
        ));
    }
    room.reserve_bytes(offer.bytes())?;
    if let Some(promised) = offer.digest() {
        policy::check_digest(admitted.signed_digest.as_ref(), &promised)?;
    }
    shared.launcher.artifacts.take(offer, by).await
}
