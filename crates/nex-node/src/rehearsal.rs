//! What a start would meet, tried by the code that starts a node and without starting one: for `nex node preflight`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::Client;
use async_nats::RequestErrorKind;
use nex_bus::denials::{Action, Denial, Denials};
use nex_protocol::id::NodeId;
use nex_protocol::subject::{self, Control, Discovery};
use nkeys::KeyPair;
use serde::Deserialize;

use crate::config::{IsolationConfig, NodeConfig};
use crate::identity::Identity;
use crate::node::{NodeError, NodeOptions, addresses};
use crate::sandbox::{Host, Sandboxes};
use crate::state_dir::{self, StateError};

/// Longest wait for JetStream.
const ANSWER: Duration = Duration::from_secs(3);
/// The bucket that deployers use unless they say otherwise, as a stream.
const ARTIFACTS: &str = "OBJ_NEXCLIFILES";

/// A NATS without JetStream, as far as the node can tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoJetStream {
    /// The node's user may not ask.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// No server of it has JetStream.
    #[error("this NATS has no JetStream, without which nothing can be deployed; next: start its server with -js")]
    Off,
    /// The account has none.
    #[error(
        "JetStream is not enabled for this account, without which nothing can be deployed; next: have its operator enable it"
    )]
    NotForAccount,
    /// Nobody knows.
    #[error("JetStream does not answer; next: see the log of the NATS server")]
    Silent,
}

/// Looks for JetStream by a question that the least permissions of a node allow.
///
/// # Errors
/// [`NoJetStream`].
pub async fn jetstream(nats: &Client, denials: &Denials) -> Result<(), NoJetStream> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        code: u16,
    }
    let question = format!("$JS.API.STREAM.INFO.{ARTIFACTS}");
    let denied = denials.next(|denial| denial.action == Action::Publish && denial.subject == question);
    let asked = tokio::time::timeout(ANSWER, nats.request(question.clone(), "".into()));
    let answer = tokio::select! {
        // Listened for before anything is asked.
        biased;
        denial = denied => return Err(denial.into()),
        answer = asked => answer.map_err(|_late| NoJetStream::Silent)?,
    };
    match answer {
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(NoJetStream::Off),
        Err(_) => Err(NoJetStream::Silent),
        Ok(message) => match serde_json::from_slice::<Answer>(&message.payload).ok().and_then(|answer| answer.error) {
            Some(Error { code: 503 }) => Err(NoJetStream::NotForAccount),
            _ => Ok(()),
        },
    }
}

/// What the node's user may not do of what a node does; those without which none starts first.
///
/// # Errors
/// When the connection is lost.
pub async fn denied(nats: &Client, denials: &Denials, node: &NodeId) -> Result<Vec<Denial>, async_nats::Error> {
    let mut subscriptions = Vec::new();
    for subject in Control::subscriptions(node) {
        subscriptions.push(nats.queue_subscribe(subject, node.to_string()).await?);
    }
    for subject in Discovery::SUBSCRIPTIONS {
        subscriptions.push(nats.subscribe(subject).await?);
    }
    // Nobody listens there, and the server checks all the same.
    for subject in published(node) {
        nats.publish(subject, "".into()).await?;
    }
    nats.flush().await?;
    denials.settle(nats).await;
    let found = std::iter::from_fn(|| denials.take(|_| true));
    let (mut needed, others): (Vec<_>, Vec<_>) = found.partition(is_needed);
    needed.extend(others);
    Ok(needed)
}

/// Whether no node starts without it.
#[must_use]
pub fn is_needed(denial: &Denial) -> bool {
    denial.action == Action::Subscribe && denial.subject.starts_with("$NEX.") && !denial.subject.starts_with(subject::HISTORY)
}

/// One subject of each kind that a node publishes on, in a namespace that nobody has.
fn published(node: &NodeId) -> Vec<String> {
    let own = ["$JS.API.DIRECT.GET.", "$JS.FC."].map(|prefix| format!("{prefix}{ARTIFACTS}.preflight"));
    let shared = [format!("$NEX.events.preflight.{node}"), format!("$NEX.logs.preflight.{node}.preflight.preflight")];
    let consumer = format!("$JS.API.CONSUMER.CREATE.{ARTIFACTS}");
    own.into_iter().chain(shared).chain([consumer]).collect()
}

/// Who the node of a state directory is; where none was started there yet, somebody else.
///
/// # Errors
/// [`StateError::Key`], which never happens.
pub fn identity(state_dir: &Path) -> Result<NodeId, StateError> {
    Identity::read(state_dir).map_or_else(|| somebody(state_dir), Ok)
}

fn somebody(dir: &Path) -> Result<NodeId, StateError> {
    KeyPair::new_server().public_key().parse().map_err(|_never| StateError::Key { path: dir.to_owned() })
}

/// Whether the state directory is free.
///
/// # Errors
/// [`StateError::InUse`] while another node has it.
pub fn is_free(state_dir: &Path) -> Result<(), StateError> {
    match state_dir::holder(state_dir)? {
        None => Ok(()),
        Some(_) => Err(StateError::InUse(state_dir.to_owned())),
    }
}

/// The host services of the configuration.
///
/// # Errors
/// [`NodeError::HostServices`], with all that is wrong.
pub fn host_services(config: &NodeConfig) -> Result<nex_host::Config, NodeError> {
    let services = config.host_services.services.iter();
    let services = services.map(|(name, it)| (name.clone(), it.enabled, it.config.clone()));
    nex_host::Config::new(services).map_err(NodeError::HostServices)
}

/// Opens the sandboxes that a node would have, as somebody else in a directory of its own, and removes them again. Tells what they are.
///
/// # Errors
/// [`NodeError`], as the node would end with it.
pub async fn sandboxes(options: &NodeOptions) -> Result<String, NodeError> {
    let dir = Scratch(options.state_dir.with_file_name(format!("preflight-{}", std::process::id())));
    state_dir::make_private(&dir.0)?;
    let node = somebody(&dir.0)?;
    let host = Host {
        node: &node,
        state_dir: &dir.0,
        agent_binary: &options.agent_binary,
        resource_dir: &options.resource_dir,
        nats: &addresses(options).await,
    };
    let sandboxes = Box::pin(Sandboxes::open(&options.config, host, &BTreeSet::new())).await?;
    let isolation = IsolationConfig { offered: sandboxes.isolations(), ..options.config.isolation.clone() };
    let (contradiction, tags) = (isolation.contradiction(), sandboxes.tags());
    sandboxes.close().await;
    match contradiction {
        Some(contradiction) => Err(NodeError::Isolation(contradiction)),
        None => Ok(["nex.sandbox", "nex.sandbox.accel"]
            .iter()
            .filter_map(|tag| tags.get(*tag).cloned())
            .collect::<Vec<_>>()
            .join(", ")),
    }
}

/// A directory that goes when it is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "a directory of preflight stays behind");
        }
    }
}
