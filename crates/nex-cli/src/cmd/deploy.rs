//! The last step of `run` and `devrun`: deploys, and where copies of the same name run, replaces them one after the other.
//!
//! A copy is stopped only when the one that replaces it runs. Both answer calls meanwhile: they share a queue group. Whatever fails leaves
//! the rest as it was.

use anyhow::Context as _;
use nex_client::deploy::{Deployment, Keys, StopError, Target};
use nex_client::discover::Running;
use nex_client::request::RequestError;
use nex_protocol::deploy::DeployResponse;
use nex_protocol::envelope::ErrorCode;
use nex_protocol::id::{NodeId, WorkloadName};
use serde_json::json;

use super::ps::next_commands;
use super::stop::StopTarget;
use super::wait;
use crate::check::Usage;
use crate::manifest::Settings;
use crate::output::Output;
use crate::plan::{BY_HAND, Revision};
use crate::session::Session;

/// What is deployed, and by whom.
pub(crate) struct Deploy<'a> {
    pub(crate) deployment: &'a Deployment,
    pub(crate) keys: &'a Keys,
    pub(crate) is_default_trigger: bool,
    /// Whether to follow the job to its end.
    pub(crate) waits: bool,
    /// Whether there are to be no more copies than are deployed now.
    pub(crate) stops_surplus: bool,
}

/// The copies of a name that its issuer may replace.
#[derive(Debug)]
pub(crate) struct Copies {
    name: WorkloadName,
    /// Those that run still.
    left: Vec<StopTarget>,
    replaced: Vec<StopTarget>,
}

impl Copies {
    /// No copy is replaced.
    pub(crate) fn none(name: &WorkloadName) -> Self {
        Self { name: name.clone(), left: Vec::new(), replaced: Vec::new() }
    }

    /// These, which are its issuer's own.
    pub(crate) fn of(name: &WorkloadName, left: Vec<StopTarget>) -> Self {
        Self { left, ..Self::none(name) }
    }

    /// Those of this name among what runs; what another issuer has started is not ours to replace.
    pub(crate) fn among(running: &[Running], name: &WorkloadName, issuer: &str, output: &Output) -> Self {
        let mut copies = Self::none(name);
        for running in running {
            let Some(copy) = StopTarget::of(running).filter(|copy| copy.name == *name) else { continue };
            // Nodes before this version do not say whose it is; they refuse to stop what is another's.
            if running.workload.issuer.is_empty() || running.workload.issuer == issuer {
                copies.left.push(copy);
            } else {
                output.note(format_args!("Left {} on node {} alone: another issuer started it", copy.id, copy.node));
            }
        }
        copies
    }

    /// How many run still.
    pub(crate) fn count(&self) -> usize {
        self.left.len()
    }

    /// The node each is to be replaced on: its own where there are several, so that they stay apart. A single one may move.
    pub(crate) fn nodes(&self) -> Vec<Option<NodeId>> {
        match self.left.as_slice() {
            [] | [_] => vec![None],
            several => several.iter().map(|copy| Some(copy.node.clone())).collect(),
        }
    }

    /// Those that run.
    pub(crate) fn into_left(self) -> Vec<StopTarget> {
        self.left
    }

    /// Says of an error what runs in spite of it.
    pub(crate) fn spare<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        if self.left.is_empty() {
            return result;
        }
        let list = |copies: &[StopTarget]| {
            copies.iter().map(|copy| format!("{} on node {}", copy.id, copy.node)).collect::<Vec<_>>().join(", ")
        };
        let still = format!("'{}' was not replaced; the old copy still runs: {}", self.name, list(&self.left));
        result.with_context(|| match self.replaced.len() {
            0 => still,
            count => format!("{still}; {count} other copies were replaced"),
        })
    }
}

impl Deploy<'_> {
    /// Deploys to each of the targets, at least one, and stops one of the copies after each; prints the result.
    pub(crate) async fn run(
        &self,
        targets: &[Target],
        mut copies: Copies,
        session: &Session,
        output: &mut Output,
    ) -> anyhow::Result<()> {
        if self.waits {
            if targets.len() > 1 {
                let why =
                    "several jobs of this name run, and only one can be waited for; next: leave --wait out, or stop the others";
                return Err(Usage(why.to_owned()).into());
            }
            let follow = wait::listen(&self.deployment.name, session).await?;
            let started = self.replace(targets, &mut copies, session, output).await?;
            let Some((DeployResponse { id, .. }, node)) = started.last() else { return Ok(()) };
            output.note(output.style().dim(&format!("Job {id} runs on node {node}; interrupted, it runs on")));
            return Box::pin(follow.until_end(id, session, output)).await;
        }
        let started = self.replace(targets, &mut copies, session, output).await?;
        self.print(&started, &copies, &session.repeated, output)
    }

    /// Deploys to each of the targets, and stops one of the copies after each, as long as there are any.
    pub(crate) async fn replace(
        &self,
        targets: &[Target],
        copies: &mut Copies,
        session: &Session,
        output: &Output,
    ) -> anyhow::Result<Vec<(DeployResponse, NodeId)>> {
        let mut started = Vec::new();
        for copy in &copies.left {
            let StopTarget { node, id, name, .. } = copy;
            output.note(format_args!("Workload {name} ({id}) already exists on node {node}; it runs until a new copy does"));
        }
        for target in targets {
            let deployed =
                session.client.deploy(&in_place_of(self.deployment, copies.left.first(), target), target, self.keys).await;
            let deployed = copies.spare(deployed.map_err(Into::into))?;
            if deployed.exit_code.is_some() && !copies.left.is_empty() {
                let why = "it ended at once, with exit code 0, so that there is nothing to replace the old copy with; next: leave the \
                           old one alone with --no-stop, or stop it first";
                return copies.spare(Err(anyhow::anyhow!(why)));
            }
            started.push((deployed, target.node.clone()));
            if !copies.left.is_empty() {
                let old = copies.left.remove(0);
                stop_replaced(&old, self.keys, session, output).await?;
                copies.replaced.push(old);
            }
        }
        while self.stops_surplus && !copies.left.is_empty() {
            let surplus = copies.left.remove(0);
            stop_replaced(&surplus, self.keys, session, output).await?;
        }
        Ok(started)
    }

    fn print(
        &self,
        started: &[(DeployResponse, NodeId)],
        copies: &Copies,
        repeated: &str,
        output: &mut Output,
    ) -> anyhow::Result<()> {
        let Some((DeployResponse { id, name, issuer, .. }, node)) = started.last() else { return Ok(()) };
        let deployment = self.deployment;
        if output.is_json() {
            let triggers: Vec<_> = deployment.triggers.iter().cloned().chain(deployment.kinds()).collect();
            let replaced: Vec<_> = copies.replaced.iter().map(|copy| copy.id.to_string()).collect();
            return output.document(&json!({
                "started": true, "id": id, "name": name, "node_id": node, "issuer": issuer, "type": deployment.r#type,
                "location": deployment.artifact.location.to_string(), "digest": deployment.artifact.digest,
                "bytes": deployment.artifact.bytes, "triggers": triggers, "replaced": replaced,
                "exit_code": started.last().and_then(|(response, _)| response.exit_code),
            }));
        }
        if let Some(code) = started.last().and_then(|(response, _)| response.exit_code) {
            return output
                .line(format_args!("✅ Workload '{name}' ({id}) ran on node {node} and has ended with exit code {code}"));
        }
        for (DeployResponse { id, name, .. }, node) in started {
            output.line(format_args!(
                "🚀 Workload '{name}' accepted. You can now refer to this workload with ID: {id} on node {node}"
            ))?;
        }
        if self.is_default_trigger {
            output.line(format_args!("No trigger subject was given, so its name calls it: {name}"))?;
        }
        let trigger = deployment.triggers.iter().find(|subject| !subject.contains(['*', '>'])).map(String::as_str);
        output.line(next_commands(name, id, trigger, repeated, output.style()))
    }
}

/// The deployment that says which copy it replaces, where that is on the same node.
pub(crate) fn in_place_of(deployment: &Deployment, old: Option<&StopTarget>, target: &Target) -> Deployment {
    let old = old.filter(|old| old.node == target.node && old.name == deployment.name);
    Deployment { replaces: old.map(|old| old.id.clone()), ..deployment.clone() }
}

/// Stops a copy that was replaced.
pub(crate) async fn stop_replaced(old: &StopTarget, keys: &Keys, session: &Session, output: &Output) -> anyhow::Result<()> {
    let StopTarget { node, id, name, .. } = old;
    match old.stop(&session.client, &keys.issuer).await {
        Ok(_) => {}
        Err(StopError::Request(error)) if is_gone(&error) => {}
        Err(StopError::Request(RequestError::Refused(failure))) if is_of_another(failure.code, &failure.message) => {
            output.note(format_args!("Left {id} running: another issuer started it"));
            return Ok(());
        }
        Err(error) => {
            let what = format!(
                "a new copy of '{name}' runs, but the old one, {id} on node {node}, was not stopped, and may run besides it; next: \
                 nex stop {node} {id}"
            );
            return Err(anyhow::Error::from(error).context(what));
        }
    }
    output.note(format_args!("Replaced {id} on node {node}"));
    Ok(())
}

/// The revision of what is deployed by hand: a file that says the same has nothing to do.
pub(crate) async fn by_hand(deployment: &Deployment, keys: &Keys, session: &Session) -> anyhow::Result<String> {
    let versions = session.secret_versions(deployment.secrets.values(), &keys.issuer).await?;
    let Deployment { name, r#type, artifact, .. } = deployment;
    let settings = Settings::of(deployment);
    let revision = Revision::new(BY_HAND, &artifact.digest, (name, *r#type), (&settings, &versions), &keys.issuer);
    Ok(revision.context("cannot sign; next: give an issuer file that holds a seed (S…)")?.to_string())
}

/// Whether what was to be stopped is gone already.
pub(super) fn is_gone(error: &RequestError) -> bool {
    match error {
        RequestError::NotThere { .. } => true,
        RequestError::Refused(failure) => failure.code == ErrorCode::NotFound || failure.message == "No such workload",
        RequestError::TimedOut { .. } | RequestError::Malformed { .. } | RequestError::NotSent { .. } => false,
    }
}

fn is_of_another(code: ErrorCode, message: &str) -> bool {
    code == ErrorCode::Denied || message.contains("the only entity allowed to terminate")
}
