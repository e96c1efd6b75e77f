//! DEPLOY: checks, artifact, start; then the reply. The workload is in the journal before its deployer hears of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nex_process::shares::{Share, Shares};
use nex_process::{Deadline, Elapsed};
use nex_protocol::deploy::{DeployRequest, DeployResponse, HealthCheck};
use nex_protocol::envelope::{ErrorCode, Failure, chain};
use nex_protocol::id::{Namespace, WorkloadId};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::repeats::{self, Repeats};
use super::{body, settle, token};
use crate::admission::{Admission, AdmittedDeploy};
use crate::clock;
use crate::journal::TokenId;
use crate::policy;
use crate::status::NodeStatus;

/// Deploys worked on at once: in all, of one namespace, of one issuer. A namespace is what NATS permissions bind a user to; issuers
/// are made as fast as keys are.
const MAX_CONCURRENT: usize = 64;
const OF_A_NAMESPACE: usize = 32;
const OF_AN_ISSUER: usize = 16;

fn no_time(Elapsed: Elapsed) -> Failure {
    Failure::new(ErrorCode::Unavailable, "the node had no time for this deploy: too many are under way; try again")
}

/// A deploy's turn; the next one has it when this is dropped.
struct Turn<'a> {
    _issuer: Share,
    _namespace: Share,
    _permit: Option<SemaphorePermit<'a>>,
}

/// Deploys workloads.
pub(super) struct Deploys {
    status: Arc<NodeStatus>,
    admission: Arc<Admission>,
    all: Semaphore,
    namespaces: Shares,
    issuers: Shares,
    /// The same request twice at once: the second waits for the answer to the first.
    requests: Shares,
    repeats: Repeats,
}

impl Deploys {
    /// None is under way.
    pub(super) fn new(status: Arc<NodeStatus>, admission: Arc<Admission>) -> Self {
        Self {
            status,
            admission,
            all: Semaphore::new(MAX_CONCURRENT),
            namespaces: Shares::new(OF_A_NAMESPACE),
            issuers: Shares::new(OF_AN_ISSUER),
            requests: Shares::new(1),
            repeats: Repeats::default(),
        }
    }

    /// Deploys a workload into a namespace.
    pub(super) async fn deploy(&self, namespace: &str, body: &[u8], by: Deadline) -> Result<DeployResponse, Failure> {
        if self.status.is_lame_duck() {
            return Err(Failure::new(ErrorCode::Unavailable, "Node is in lame duck mode. Workload deploy request denied"));
        }
        let Admission { identity, registry, drivers, .. } = &*self.admission;
        let with_issuers = self.admission.config_with_issuers().await;
        let config = &with_issuers.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
        let request = body::parse::<DeployRequest>("deploy", body);
        // A full node says so first, as 0.2.7 does; room is taken when it is this deploy's turn.
        if !request.as_ref().is_ok_and(|request| request.replaces.is_some()) {
            registry.has_room()?;
        }
        let mut request = self.in_its_domain(request?);
        // What is kept of the request, and compared when it comes again, is what is to run.
        let replaces = request.replaces.take();
        let namespace: Namespace =
            namespace.parse().map_err(|error| Failure::new(ErrorCode::BadRequest, format!("Invalid deploy request: {error}")))?;
        let now = clock::unix_seconds();
        let admitted = policy::admit(&request, &namespace, config, &identity.xkey, now)?;
        let by = Deadline::at(by.instant() + admitted.kind.preparation());
        policy::check_signed(&admitted, body, identity.place(namespace.as_str()), config)?;
        for details in [&request.trigger_connection, &request.host_services] {
            drivers.launcher.connections.permit(details.as_ref())?;
        }
        let key = repeats::key(&namespace, body);
        // One that is under way may have to become healthy and to settle first.
        let health = admitted.policy.health.as_ref().map_or(Duration::ZERO, HealthCheck::start_time);
        let patience = Deadline::at(by.instant() + settle::longest(&request) + health);
        let _alone = patience.bound(self.requests.take(&key.to_string())).await.map_err(no_time)?;
        if let Some(answer) = self.repeats.find(&key, (registry, &drivers.ended), (&namespace, &admitted.claims), &request) {
            return answer;
        }
        let charge = policy::charge(config, &namespace, &request, &admitted);
        let replaced =
            replaces.and_then(|id| registry.replaceable(&charge, |spec| spec.id.as_str() == id && spec.name == admitted.name));
        // Before it waits: what cannot be taken anyway keeps nobody waiting. What counts is the room that it takes when it is its turn.
        drop(registry.reserve(&config.quotas, charge.clone(), replaced.clone())?);
        self.admission.rates.take(&config.quotas, &charge, Instant::now())?;
        let turn = self.turn(&namespace, &admitted.claims.iss, by).await?;
        let mut reservation = registry.reserve(&config.quotas, charge, replaced)?;
        reservation.reserve_triggers(&namespace, &admitted.triggers.subjects)?;
        let (claims, until, mut is_spent) = (admitted.claims.clone(), admitted.spent_until, false);
        let spent = async {
            token::spend(&drivers.journal, &claims, "deploy", until, now).await?;
            is_spent = true;
            Ok(())
        };
        let deploy = AdmittedDeploy { namespace, request, admitted, reservation };
        let answer = Box::pin(self.start(deploy, spent, turn, by)).await;
        // What has used up no token may be tried again.
        if is_spent {
            if answer.is_err()
                && let Err(error) = drivers.journal.settle_token(TokenId::from(&claims)).await
            {
                tracing::error!(error = %chain(&error), "the token of a refused deploy is not known to be used");
            }
            self.repeats.remember(key, &answer);
        }
        answer
    }

    /// Where the deployer's NATS server has another JetStream domain than the node's, as behind a leaf node, what he has uploaded is there.
    fn in_its_domain(&self, mut request: DeployRequest) -> DeployRequest {
        let own = self.admission.drivers.launcher.nats.server_info().domain;
        let other = request.artifact_domain.take().filter(|domain| Some(domain) != own.as_ref());
        if request.jsdomain.as_deref().is_none_or(str::is_empty) && other.is_some() {
            request.jsdomain = other;
        }
        request
    }

    /// Starts it, and waits until it runs and has settled.
    async fn start(
        &self,
        deploy: AdmittedDeploy,
        spent: impl Future<Output = Result<(), Failure>>,
        turn: Turn<'_>,
        by: Deadline,
    ) -> Result<DeployResponse, Failure> {
        let (settles, time) = (deploy.request.settle_ms.is_some(), settle::longest(&deploy.request));
        let lender = deploy.reservation.lender();
        // Boxed: a deploy's future is large, and one of many requests.
        let mut started = Box::pin(self.admission.begin(deploy, spent, by)).await?;
        started.workload.began().await;
        // It was started: the next one need not wait until it is healthy and has settled.
        drop(turn);
        self.admission.runs(&mut started).await?;
        // A job is there to end: how is told by who asks what has ended.
        let response = match settles && started.workload.spec.policy.job.is_none() {
            true => settle::settle(started, time).await?,
            false => started.response,
        };
        if let Some(lender) = lender.filter(|_| response.exit_code.is_none()) {
            self.stop_replaced(&lender, &response.id);
        }
        Ok(response)
    }

    /// Stops what has lent its room. Its deployer would, but who has gone by then would have more than his quota.
    fn stop_replaced(&self, old: &WorkloadId, by: &str) {
        let Some(workload) = self.admission.registry.get(old.as_str()) else { return };
        let (admission, reason) = (Arc::clone(&self.admission), format!("replaced by {by}"));
        self.admission.drivers.scope.spawn("replaced workload", async move {
            workload.stop(&reason).await;
            Box::pin(admission.retire(&workload.spec)).await;
        });
    }

    /// Waits for a turn; who has many deploys under way waits for those and keeps nobody else waiting.
    async fn turn(&self, namespace: &Namespace, issuer: &str, by: Deadline) -> Result<Turn<'_>, Failure> {
        let turn = async {
            let issuer = self.issuers.take(issuer).await;
            let namespace = self.namespaces.take(namespace.as_str()).await;
            Turn { _issuer: issuer, _namespace: namespace, _permit: self.all.acquire().await.ok() }
        };
        by.bound(turn).await.map_err(no_time)
    }
}
