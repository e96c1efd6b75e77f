//! `nex apply`: makes what runs be what a file says.
//!
//! There is no controller: it compares once, and does what is missing as `devrun` and `stop` would, signed by the same issuer. Done again, it
//! finds nothing to do.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use nex_client::artifact::{Artifact, DEFAULT_BUCKET_BYTES};
use nex_client::auction::Auction;
use nex_client::deploy::{Deployment, Keys, Target};
use nex_protocol::control::AuctionRequest;
use nex_protocol::deploy::WorkloadType;
use nex_protocol::digest::Digest;
use nex_protocol::id::NodeId;
use serde_json::{Value, json};

use super::deploy::{Copies, Deploy};
use super::stop::StopTarget;
use super::upload::upload;
use crate::args::{ConnectionArgs, SETTLE};
use crate::check::{self, Settle, Usage};
use crate::env::Env;
use crate::keys;
use crate::manifest::{Manifest, Source, Wanted};
use crate::output::Output;
use crate::plan::{Change, Comparison, Revision};
use crate::session::{self, Session};
use crate::sniff::sniff;

/// `nex apply`
#[derive(Debug, Args)]
#[command(after_help = "The file:
  project = \"shop\"                  # default: the directory's name; what --prune goes by

  [workloads.greet]                 # the workload's name
  file = \"greet.mjs\"                # or url = \"nats://BUCKET/key\" with its type
  triggers = [\"fn.greet\"]           # default: its name calls a function
  copies = 2
  environment = { GREETING = \"hi\", TOKEN = { file = \"token\" }, USER = { variable = \"USER\" } }
  env_files = [\".env\"]
  # as the flags of devrun: type, argv (a list), essential, memory_mib, call_timeout, concurrency,
  # machine, settle, nodes (ids), description

Examples:
  nex apply --dry-run               what would be done
  nex apply                         do it
  nex apply shop.toml --prune       also stop what was applied before and is not in the file any more")]
pub(crate) struct ApplyArgs {
    /// The file that says what should run
    #[arg(value_name = "FILE", default_value = "nex.toml")]
    file: PathBuf,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Stop what an earlier version of the file has started and this one does not name
    #[arg(long)]
    prune: bool,
    /// Only on one of these nodes, whatever the file says; repeatable [default: on those of the file, or whichever suits best]
    #[arg(long = "node", value_name = "NODE", env = "NEX_TRUSTED_NODES", hide_env_values = true, value_delimiter = ',', value_parser = check::trusted_node)]
    nodes: Vec<NodeId>,
}

/// A workload of the file with what is known of it before anything is sent.
struct Resolved<'a> {
    wanted: &'a Wanted,
    r#type: WorkloadType,
    auction: AuctionRequest,
    /// Where it may run; anywhere if empty.
    nodes: Vec<NodeId>,
    /// Where it lies, if it is not to be uploaded.
    stored: Option<Artifact>,
    revision: Revision,
}

/// Compares and does what is missing.
pub(crate) async fn run(args: &ApplyArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let manifest = Manifest::read(&args.file, |name| env.variable(name))?;
    let keys = keys::load(None, None, env, output)?;
    let session = session::open(connection, env).await?;
    let mut resolved = Vec::new();
    for wanted in &manifest.workloads {
        let found = resolve(wanted, &args.nodes, &manifest.project, &keys, &session).await;
        resolved.push(found.with_context(|| format!("{}: workloads.{}", args.file.display(), wanted.name))?);
    }
    let running = session.client.workloads(None, session.discovery_timeout).await?;
    let issuer = keys.issuer.public_key();
    let comparison = Comparison { running: &running, issuer: &issuer };
    let changes: Vec<Change> =
        resolved.iter().map(|one| comparison.change(&one.wanted.name, one.wanted.copies, &one.revision)).collect();
    let names: Vec<_> = manifest.workloads.iter().map(|wanted| &wanted.name).collect();
    let orphans = comparison.orphans(&manifest.project, &names);
    if !output.is_json() {
        print(&changes, &orphans, args, output)?;
    }
    if !args.dry_run {
        for (one, change) in resolved.iter().zip(&changes).filter(|(_, change)| !change.is_none()) {
            let applied = Box::pin(apply(one, change, &keys, &session, output)).await;
            applied.with_context(|| format!("workload '{}' was not applied; what comes before it was", change.name))?;
        }
        for orphan in orphans.iter().filter(|_| args.prune) {
            session.client.stop(&orphan.node, &orphan.id, &orphan.name, &keys.issuer).await?;
        }
    }
    match output.is_json() {
        true => output.document(&as_json(&manifest.project, &changes, &orphans, args)),
        false => output.line(match (args.dry_run, changes.iter().all(Change::is_none) && (orphans.is_empty() || !args.prune)) {
            (_, true) => "All is as it should be",
            (true, false) => "Nothing was done: this was a dry run",
            (false, false) => "✅ Applied",
        }),
    }
}

/// Finds out all that can be known of a workload before anything is changed.
async fn resolve<'a>(
    wanted: &'a Wanted,
    trusted: &[NodeId],
    project: &str,
    keys: &Keys,
    session: &Session,
) -> anyhow::Result<Resolved<'a>> {
    let nodes = match (wanted.nodes.as_slice(), trusted) {
        (named, []) => named.to_vec(),
        ([], trusted) => trusted.to_vec(),
        (named, trusted) => named.iter().filter(|node| trusted.contains(node)).cloned().collect(),
    };
    if nodes.is_empty() && !trusted.is_empty() {
        let why = "none of its nodes is among those of --node or NEX_TRUSTED_NODES; next: change either";
        return Err(Usage(why.to_owned()).into());
    }
    let (r#type, auction, digest, stored) = match &wanted.source {
        Source::File(file) => {
            let sniffed = sniff(file, wanted.r#type)?;
            let opened = std::fs::File::open(file).and_then(Digest::read);
            let (digest, _) = opened.with_context(|| format!("cannot read {}", file.display()))?;
            (sniffed.r#type, sniffed.auction(), digest, None)
        }
        Source::Stored(location) => {
            let artifact = session.client.locate(location, session.jetstream_domain.as_deref()).await?;
            let r#type = wanted.r#type.unwrap_or(WorkloadType::Native);
            let auction = AuctionRequest { workload_types: Some(vec![r#type.to_string()]), ..AuctionRequest::default() };
            (r#type, auction, artifact.digest, Some(artifact))
        }
    };
    if !wanted.settings.triggers.is_empty() && !r#type.is_function() {
        let why = format!("a {} workload is not called by subjects; next: leave triggers out", r#type);
        return Err(Usage(why).into());
    }
    let revision = Revision::new(project, &digest, r#type, &wanted.settings, &keys.issuer)
        .context("cannot sign; next: give an issuer file that holds a seed (S…)")?;
    Ok(Resolved { wanted, r#type, auction, nodes, stored, revision })
}

async fn apply(one: &Resolved<'_>, change: &Change, keys: &Keys, session: &Session, output: &Output) -> anyhow::Result<()> {
    if !change.replace.is_empty() || change.start > 0 {
        let auction = session.client.auction(&one.auction, session.discovery_timeout).await?;
        let targets = targets(&auction, change, &one.nodes)?;
        let artifact = match (&one.stored, &one.wanted.source) {
            (Some(artifact), _) => artifact.clone(),
            (None, Source::File(file)) => {
                Box::pin(upload(file, DEFAULT_BUCKET_BYTES, &one.wanted.name, session, output)).await?.artifact
            }
            (None, Source::Stored(location)) => session.client.locate(location, session.jetstream_domain.as_deref()).await?,
        };
        let deployment = deployment(one, artifact);
        let mut copies = Copies::of(&change.name, change.replace.clone());
        let deploy = Deploy { deployment: &deployment, keys, is_default_trigger: false };
        for (response, node) in deploy.replace(&targets, &mut copies, session, output).await? {
            output.note(format_args!("Started {} ({}) on node {node}", response.name, response.id));
        }
    }
    for surplus in &change.stop {
        session.client.stop(&surplus.node, &surplus.id, &surplus.name, &keys.issuer).await?;
        output.note(format_args!("Stopped {} ({}) on node {}", surplus.name, surplus.id, surplus.node));
    }
    Ok(())
}

/// Where each new copy goes: a replaced one stays on its node where there are several, and new ones spread over those who bid.
fn targets(auction: &Auction, change: &Change, allowed: &[NodeId]) -> anyhow::Result<Vec<Target>> {
    let mut used: Vec<NodeId> = Vec::new();
    let mut targets = Vec::new();
    let stay = change.unchanged + change.replace.len() + change.start > 1;
    for index in 0..change.replace.len() + change.start {
        let own = change.replace.get(index).filter(|_| stay).map(|old| old.node.clone());
        let own = own.filter(|node| allowed.is_empty() || allowed.contains(node));
        let own = own.and_then(|node| auction.best_of(&[node]).ok());
        let unused = || {
            let bidding = auction.bids.iter().filter_map(|bid| bid.node_id.parse::<NodeId>().ok());
            let free: Vec<NodeId> =
                bidding.filter(|node| !used.contains(node) && (allowed.is_empty() || allowed.contains(node))).collect();
            if free.is_empty() { None } else { auction.best_of(&free).ok() }
        };
        let bid = match own.or_else(unused) {
            Some(bid) => bid,
            None => auction.best_of(allowed)?,
        };
        used.push(bid.node);
        targets.push(bid.target);
    }
    Ok(targets)
}

fn deployment(one: &Resolved<'_>, artifact: Artifact) -> Deployment {
    let Wanted { name, settings, settle, .. } = one.wanted;
    let fresh = Deployment::new(name.clone(), one.r#type, artifact);
    Deployment {
        description: settings.description.clone(),
        argv: settings.argv.clone(),
        environment: settings.environment.clone(),
        essential: settings.essential,
        triggers: if settings.triggers.is_empty() { fresh.triggers } else { settings.triggers.clone() },
        limits: settings.limits,
        machine_class: settings.machine.clone(),
        settle: match settle {
            Some(Settle(time)) => *time,
            None => (!one.r#type.is_function()).then_some(SETTLE),
        },
        revision: Some(one.revision.to_string()),
        ..fresh
    }
}

fn print(changes: &[Change], orphans: &[StopTarget], args: &ApplyArgs, output: &mut Output) -> anyhow::Result<()> {
    let copies = |count: usize| if count == 1 { "1 copy".to_owned() } else { format!("{count} copies") };
    for change in changes {
        let Change { name, unchanged, replace, start, stop, why } = change;
        let mut parts = Vec::new();
        if !replace.is_empty() {
            parts.push(format!("replace {}: {}", copies(replace.len()), why.unwrap_or_default()));
        }
        if *start > 0 {
            parts.push(format!("start {}", copies(*start)));
        }
        if !stop.is_empty() {
            parts.push(format!("stop {}", copies(stop.len())));
        }
        if parts.is_empty() {
            parts.push(format!("unchanged, {}", copies(*unchanged)));
        }
        let sign = match change {
            _ if change.is_none() => "=",
            _ if !replace.is_empty() => "~",
            _ if *start > 0 => "+",
            _ => "-",
        };
        output.line(format_args!("{sign} {name}: {}", parts.join(", ")))?;
    }
    for StopTarget { node, id, name } in orphans {
        match args.prune {
            true => output.line(format_args!("- {name}: stop {id} on node {node}: it is not in the file any more"))?,
            false => output.line(format_args!("? {name}: {id} on node {node} is not in the file any more; --prune stops it"))?,
        }
    }
    Ok(())
}

fn as_json(project: &str, changes: &[Change], orphans: &[StopTarget], args: &ApplyArgs) -> Value {
    let ids = |targets: &[StopTarget]| targets.iter().map(|target| target.id.to_string()).collect::<Vec<_>>();
    let change = |change: &Change| {
        json!({
            "name": change.name, "unchanged": change.unchanged, "replace": ids(&change.replace), "start": change.start,
            "stop": ids(&change.stop), "why": change.why,
        })
    };
    json!({
        "project": project, "applied": !args.dry_run, "pruned": args.prune && !args.dry_run,
        "changes": changes.iter().map(change).collect::<Vec<_>>(), "orphans": ids(orphans),
    })
}
