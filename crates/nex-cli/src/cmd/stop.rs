//! `nex stop`: stops a workload by node and id, as in 0.2.7, or by id or name on any node.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use nex_client::Client;
use nex_client::deploy::StopError;
use nex_client::discover::Running;
use nex_protocol::deploy::policy::MAX_STOP_GRACE;
use nex_protocol::id::{NodeId, WorkloadId, WorkloadName};
use nkeys::KeyPair;
use serde_json::json;

use crate::args::ConnectionArgs;
use crate::check::Usage;
use crate::complete;
use crate::env::Env;
use crate::keys;
use crate::node_ref::NodeRef;
use crate::output::Output;
use crate::session::{self, Session};

/// `nex stop`
#[derive(Debug, Args)]
#[command(override_usage = "nex stop [OPTIONS] <WORKLOAD>...\n       nex stop [OPTIONS] <NODE> <WORKLOAD>")]
#[command(after_help = "Examples:
  nex stop echojs                       every copy of a name, wherever it runs
  nex stop echojs greetjs               and those of another
  nex stop cpv1o2s0tq5c73f0abcd         one workload, by id
  nex stop NB… cpv1… --name echo --issuer my.nk")]
pub(crate) struct StopArgs {
    /// Ids or names of workloads; after a node's id, the id of one there
    #[arg(value_name = "WORKLOAD", num_args = 1..=100, required = true, add = ArgValueCompleter::new(complete::workloads))]
    target: Vec<String>,
    /// Name of the workload [default: found by its id]
    #[arg(long)]
    name: Option<WorkloadName>,
    /// Seed file of the issuer that started it [default: ~/.nex/issuer.nk]
    #[arg(long, value_name = "FILE")]
    issuer: Option<PathBuf>,
}

/// One workload to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StopTarget {
    pub(crate) node: NodeId,
    pub(crate) id: WorkloadId,
    pub(crate) name: WorkloadName,
    /// Time it has to end by itself, where it was given some.
    pub(crate) grace: Duration,
}

impl StopTarget {
    /// The target for a running workload, if its ids are valid.
    pub(crate) fn of(running: &Running) -> Option<Self> {
        Some(Self {
            node: running.node.clone(),
            id: running.workload.id.parse().ok()?,
            name: running.workload.name.parse().ok()?,
            grace: running.workload.stop_grace_ms.map_or(Duration::ZERO, Duration::from_millis).min(MAX_STOP_GRACE),
        })
    }

    /// Stops it, waiting as long as it may take to end.
    pub(crate) async fn stop(&self, client: &Client, issuer: &KeyPair) -> Result<(), StopError> {
        let client = client.clone().with_patience(self.grace);
        client.stop(&self.node, &self.id, &self.name, issuer).await.map(drop)
    }
}

/// Validates an id or name of a workload: one token of a subject.
pub(crate) fn workload_token(text: &str) -> Result<&str, Usage> {
    if text.parse::<WorkloadName>().is_ok() {
        return Ok(text);
    }
    Err(Usage(format!("'{text}' is no workload id or name; next: see them with `nex ps`")))
}

/// Finds and stops the workloads.
pub(crate) async fn run(args: &StopArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let wanted = args.target.iter().map(|text| workload_token(text)).collect::<Result<Vec<_>, _>>()?;
    let issuer = keys::issuer(args.issuer.as_deref(), env, output)?;
    let session = session::open(connection, env).await?;
    let (node, wanted) = match wanted.as_slice() {
        [node, rest @ ..] if !rest.is_empty() && node.parse::<NodeId>().is_ok() => (node.parse::<NodeId>().ok(), rest),
        [node, id] if id.parse::<WorkloadId>().is_ok() => match node_called(node, &session).await {
            Some(node) => (Some(node), std::slice::from_ref(id)),
            None => (None, wanted.as_slice()),
        },
        all => (None, all),
    };
    // All of them are found before one is stopped, so that a name misspelt stops nothing.
    let mut found = Vec::new();
    for wanted in wanted {
        let more = match (&node, wanted.parse::<WorkloadId>(), &args.name) {
            (Some(node), Ok(id), Some(name)) => {
                vec![StopTarget { node: node.clone(), id, name: name.clone(), grace: Duration::ZERO }]
            }
            (node, _, name) => find(wanted, node.as_ref(), name.as_ref(), &session).await?,
        };
        found.extend(more.into_iter().filter(|one| !found.contains(one)).collect::<Vec<_>>());
    }
    let mut stopped = Vec::new();
    for target @ StopTarget { node, id, name, .. } in &found {
        target.stop(&session.client, &issuer).await?;
        if !output.is_json() {
            output.line(format_args!("✅ Workload '{name}' stopped. ({id} on node {node})"))?;
        }
        stopped.push(json!({ "stopped": true, "id": id, "name": name, "node_id": node }));
    }
    if output.is_json() { output.document(&stopped) } else { Ok(()) }
}

/// The node of this name, if there is one.
async fn node_called(name: &str, session: &Session) -> Option<NodeId> {
    NodeRef::Name(name.to_owned()).resolve(session).await.ok()
}

async fn find(
    wanted: &str,
    node: Option<&NodeId>,
    name: Option<&WorkloadName>,
    session: &Session,
) -> anyhow::Result<Vec<StopTarget>> {
    let running = session.client.workloads(Some(wanted), session.discovery_timeout).await?;
    let fits = |found: &StopTarget| node.is_none_or(|node| *node == found.node) && name.is_none_or(|name| *name == found.name);
    let found: Vec<StopTarget> = running.iter().filter_map(StopTarget::of).filter(fits).collect();
    if found.is_empty() {
        let namespace = session.client.namespace();
        anyhow::bail!(
            "No such workload: nothing in namespace {namespace} is called '{wanted}'; next: see what runs with `nex ps`"
        );
    }
    Ok(found)
}
