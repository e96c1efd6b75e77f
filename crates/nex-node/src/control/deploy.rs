//! DEPLOY: checks, artifact, start; then the reply. The workload is in the journal before its deployer hears of it.

use std::sync::Arc;

use nex_process::shares::{Share, Shares};
use nex_process::{Deadline, Elapsed};
use nex_protocol::deploy::{DeployRequest, DeployResponse, WorkloadType};
use nex_protocol::envelope::{ErrorCode, Failure};
use nex_protocol::id::{Namespace, WorkloadId};

use tokio::sync::{Semaphore, SemaphorePermit};

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
    policy::check_signed(&admitted, &request, body, shared.place(namespace.as_str()), &shared.config)?;
    for details in [&request.trigger_connection, &request.host_services] {
        shared.launcher.connections.permit(details.as_ref())?;
    }
    let _turn = tenants.turn(&namespace, &admitted.claims.iss, by).await?;
    let mut room = shared.registry.reserve()?;
    room.reserve_triggers(&namespace, &admitted.triggers)?;
    // Asked for first: a token is not used up by an artifact that is not there.
    let (bucket, connections) = (&admitted.location.bucket, &shared.launcher.connections);
    let offer = Box::pin(connections.permitted(bucket, look_up(shared, &request, &admitted, &mut room, by))).await?;
    shared.spend(&admitted.claims, "deploy", admitted.spent_until, now).await?;
    let artifact = Box::pin(connections.permitted(bucket, shared.launcher.artifacts.take(offer, by))).await?;
    // Boxed: a deploy's future is large, and one of many requests.
    Box::pin(start(shared, Order { namespace, request, admitted, room, earlier: None }, artifact)).await
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
pub(crate) async fn run(shared: &Arc<Shared>, mut order: Order, by: Deadline) -> Result<DeployResponse, Failure> {
    let cached = order.earlier.as_mut().and_then(|(_, artifact)| artifact.take());
    let artifact = match cached {
        Some(artifact) => {
            order.room.reserve_bytes(artifact.bytes)?;
            artifact
        }
        None => {
            let offer = look_up(shared, &order.request, &order.admitted, &mut order.room, by).await?;
            shared.launcher.artifacts.take(offer, by).await?
        }
    };
    Box::pin(start(shared, order, artifact)).await
}

/// Starts a workload whose artifact is there and waits until it runs.
async fn start(shared: &Arc<Shared>, order: Order, artifact: Artifact) -> Result<DeployResponse, Failure> {
    let Order { namespace, request, admitted, room, earlier } = order;
    let id = earlier.map(|(id, _)| id);
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

/// The artifact as the object store has it, refused before a byte of it is fetched if it is too large or not the one signed for.
async fn look_up(
    shared: &Shared,
    request: &DeployRequest,
    admitted: &Admitted,
    room: &mut Room,
    by: Deadline,
) -> Result<Offer, Failure> {
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
    Ok(offer)
}
