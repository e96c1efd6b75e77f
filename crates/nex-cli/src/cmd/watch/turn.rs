//! One save: read, uploaded, deployed in the place of what runs. What fails leaves what runs as it was.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use nex_client::artifact::LocalFile;
use nex_client::deploy::{Deployment, Keys, Target};
use nex_client::request::RequestError;
use nex_protocol::control::{AuctionRequest, LastExit};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::digest::Digest;
use nex_protocol::envelope::ErrorCode;
use nex_protocol::id::{NodeId, WorkloadId, WorkloadName};
use tokio::time::Instant;

use crate::check::Usage;
use crate::cmd::deploy::{by_hand, in_place_of, stop_replaced};
use crate::cmd::stop::StopTarget;
use crate::cmd::upload::{BucketArgs, upload};
use crate::exit::request_error;
use crate::local::LocalArtifact;
use crate::output::Output;
use crate::placement::Placement;
use crate::session::Session;

/// How a file is deployed, each time it is saved.
pub(crate) struct Turns<'a> {
    pub(crate) file: &'a Path,
    /// Its type, if that was said.
    pub(crate) named: Option<WorkloadType>,
    pub(crate) session: &'a Session,
    pub(crate) keys: &'a Keys,
    /// What the nodes are asked for.
    pub(crate) asked: &'a AuctionRequest,
    /// The nodes that may be taken; all if none is named.
    pub(crate) nodes: &'a [NodeId],
    pub(crate) spread: bool,
    pub(crate) bucket: BucketArgs,
}

/// What runs, and where its next version goes.
#[derive(Debug)]
pub(crate) struct Live {
    deployment: Deployment,
    targets: Vec<Target>,
    running: Vec<StopTarget>,
    /// Copies that were started here.
    own: BTreeSet<WorkloadId>,
    /// The file that they run, once it runs.
    digest: Option<Digest>,
}

/// What came of a save.
#[derive(Debug)]
pub(crate) struct Turned {
    pub(crate) outcome: anyhow::Result<Outcome>,
    /// Time since the save was noticed.
    pub(crate) took: Duration,
}

/// What was done.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It runs.
    Live { started: Vec<StopTarget>, replaced: Vec<StopTarget> },
    /// It is what runs already.
    Unchanged,
}

/// It ran to its end.
#[derive(Debug)]
struct EndedAtOnce(i32);

impl std::fmt::Display for EndedAtOnce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it ended at once, with exit code {}; next: have it stay, or run it as a job, without --watch", self.0)
    }
}

impl std::error::Error for EndedAtOnce {}

impl Live {
    /// Nothing is deployed yet; these copies run, which are to be replaced.
    pub(crate) fn new(deployment: Deployment, targets: Vec<Target>, running: Vec<StopTarget>) -> Self {
        Self { deployment, targets, running, own: BTreeSet::new(), digest: None }
    }

    pub(super) fn name(&self) -> &WorkloadName {
        &self.deployment.name
    }

    pub(super) fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// What runs.
    pub(super) fn running(&self) -> &[StopTarget] {
        &self.running
    }

    /// What runs and was started here.
    pub(super) fn own(&self) -> impl Iterator<Item = &StopTarget> {
        self.running.iter().filter(|copy| self.own.contains(&copy.id))
    }

    /// Forgets the copies that have ended, and gives them back.
    pub(super) fn take_ended(&mut self, end: impl Fn(&WorkloadId) -> Option<LastExit>) -> Vec<(StopTarget, LastExit)> {
        let ended: Vec<_> = self.running.iter().filter_map(|copy| Some((copy.clone(), end(&copy.id)?))).collect();
        self.running.retain(|copy| ended.iter().all(|(gone, _)| gone.id != copy.id));
        ended
    }
}

impl Turns<'_> {
    /// The first deploy: the file was read and uploaded before.
    pub(super) async fn first(&self, mut live: Live) -> (Live, Turned) {
        let since = Instant::now();
        let outcome = self.replace(&mut live).await;
        (live, Turned { outcome, took: since.elapsed() })
    }

    /// The file was saved.
    pub(super) async fn again(&self, mut live: Live, since: Instant) -> (Live, Turned) {
        let outcome = self.deploy(&mut live).await;
        (live, Turned { outcome, took: since.elapsed() })
    }

    async fn deploy(&self, live: &mut Live) -> anyhow::Result<Outcome> {
        // What a deploy notes otherwise is one line here.
        let silent = Output::new(true, true);
        let local = LocalArtifact::open(self.file, self.named, &silent)?;
        let (was, is) = (live.deployment.r#type, local.r#type);
        if was != is {
            return Err(
                Usage(format!("it was a {was} workload and is a {is} one now; next: end this, and start it again")).into()
            );
        }
        let file = LocalFile::read(local.file()).await?;
        if live.digest == Some(file.digest) && !live.running.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        let uploaded = Box::pin(upload(file, self.bucket, &live.deployment.name, self.session, &silent)).await?;
        live.deployment.artifact = uploaded.artifact;
        live.deployment.revision = Some(by_hand(&live.deployment, self.keys, self.session).await?);
        match self.replace(live).await {
            Err(error) if another_node_may_do(&error) => {
                live.targets = self.place(live).await?;
                self.replace(live).await
            }
            done => done,
        }
    }

    async fn place(&self, live: &Live) -> anyhow::Result<Vec<Target>> {
        let auction = self.session.client.auction(self.asked, self.session.discovery_timeout).await?;
        let mut wishes: Vec<_> = live.running.iter().map(|copy| Some(copy.node.clone())).collect();
        wishes.resize(live.targets.len(), None);
        Placement { auction: &auction, allowed: self.nodes, spread: self.spread }.place(&wishes, &[])
    }

    /// Deploys to each target, and stops one of the copies that ran after each.
    async fn replace(&self, live: &mut Live) -> anyhow::Result<Outcome> {
        let mut old: VecDeque<_> = std::mem::take(&mut live.running).into();
        let (mut started, mut replaced) = (Vec::new(), Vec::new());
        let done = self.replace_each(live, &mut old, &mut replaced, &mut started).await;
        live.running.clone_from(&started);
        live.running.extend(old);
        done?;
        live.digest = Some(live.deployment.artifact.digest);
        Ok(Outcome::Live { started, replaced })
    }

    async fn replace_each(
        &self,
        live: &mut Live,
        old: &mut VecDeque<StopTarget>,
        replaced: &mut Vec<StopTarget>,
        started: &mut Vec<StopTarget>,
    ) -> anyhow::Result<()> {
        let Live { deployment, targets, own, .. } = live;
        for target in targets.iter() {
            let response = self.session.client.deploy(&in_place_of(deployment, old.front(), target), target, self.keys).await?;
            if let Some(code) = response.exit_code {
                return Err(EndedAtOnce(code).into());
            }
            let id: WorkloadId = response.id.parse()?;
            own.insert(id.clone());
            started.push(StopTarget {
                node: target.node.clone(),
                id,
                name: deployment.name.clone(),
                grace: stop_grace(deployment),
            });
            self.stop_first(old, replaced).await?;
        }
        while !old.is_empty() {
            self.stop_first(old, replaced).await?;
        }
        Ok(())
    }

    async fn stop_first(&self, old: &mut VecDeque<StopTarget>, replaced: &mut Vec<StopTarget>) -> anyhow::Result<()> {
        let Some(copy) = old.front() else { return Ok(()) };
        stop_replaced(copy, self.keys, self.session, &Output::new(true, true)).await?;
        replaced.extend(old.pop_front());
        Ok(())
    }
}

/// Time that its deployer gives it to end.
fn stop_grace(deployment: &Deployment) -> Duration {
    deployment.policy.as_ref().and_then(|policy| policy.stop_grace_ms).map_or(Duration::ZERO, Duration::from_millis)
}

/// Whether a node has tried it and could not run it, so that the next save may be a better one.
pub(super) fn is_the_files(error: &anyhow::Error) -> bool {
    match request_error(error) {
        Some(RequestError::Refused(failure)) => failure.code == ErrorCode::Failed,
        Some(_) => false,
        None => error.is::<EndedAtOnce>(),
    }
}

/// Whether its node has gone, or takes nothing more.
fn another_node_may_do(error: &anyhow::Error) -> bool {
    match request_error(error) {
        Some(RequestError::NotThere { .. }) => true,
        Some(RequestError::Refused(failure)) => failure.code == ErrorCode::Unavailable,
        _ => false,
    }
}
