//! `nex apply`: makes what runs be what a file says.
//!
//! There is no controller: it compares once, and does what is missing as `devrun` and `stop` would, signed by the same issuer. Done again, it
//! finds nothing to do.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use nex_client::artifact::{Artifact, LocalFile};
use nex_client::auction::Auction;
use nex_client::deploy::{Deployment, Keys, Target};
use nex_client::discover::Found;
use nex_protocol::control::{AuctionRequest, WorkloadPingRequest};
use nex_protocol::deploy::{RequestedPlacement, WorkloadType};
use nex_protocol::id::NodeId;
use nex_protocol::seal::NATS_CREDS;
use serde_json::{Value, json};

use super::deploy::{Copies, Deploy};
use super::stop::StopTarget;
use super::upload::{BucketArgs, upload};
use crate::args::{ConnectionArgs, KeyArgs, SETTLE, policy};
use crate::check::{self, Settle, Triggers, Usage};
use crate::complete;
use crate::env::Env;
use crate::local::LocalArtifact;
use crate::manifest::{Manifest, Settings, Source, Wanted};
use crate::output::Output;
use crate::placement::{Placement, note_listeners};
use crate::plan::{Change, Comparison, Revision};
use crate::registry::{RegistryArgs, pull_for_nodes};
use crate::remote::Remote;
use crate::session::{self, Session};

/// `nex apply`
#[derive(Debug, Args)]
#[command(after_help = "The file:
  project = \"shop\"                  # default: the directory's name; what --prune goes by

  [workloads.greet]                 # the workload's name
  file = \"greet.mjs\"                # or an image, as for devrun; or url = \"nats://BUCKET/key\" with its type
  triggers = [\"fn.greet\"]           # default: its name calls a function
  copies = 2
  environment = { GREETING = \"hi\", TOKEN = { file = \"token\" }, USER = { variable = \"USER\" },
                  PASSWORD = { secret = \"db\" },      # of `nex secret set`
                  KEY_FILE = { secret_file = \"key\" } }  # the path of a file with one
  env_files = [\".env\"]
  # as the flags of devrun (triggers may be any of --trigger): type, argv (a list), essential, memory_mib,
  # call_timeout, concurrency, machine, isolation, settle, nodes (ids), spread, tags, description; of a service: nats_creds, restart, stop_signal,
  # stop_grace, health, health_interval, health_timeout, health_threshold, on_secret_change; of a job: job = true, retries,
  # deadline. A job that has ended well within the last day is not run again

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
    #[arg(long = "node", value_name = "NODE", env = "NEX_TRUSTED_NODES", hide_env_values = true, value_delimiter = ',', value_parser = check::trusted_node, add = ArgValueCompleter::new(complete::node_ids))]
    nodes: Vec<NodeId>,
    /// Send environments also to nodes that do not sign their keys, as those of Nex 0.2.7: anybody may have answered in their name
    #[arg(long = "unsigned-node")]
    unsigned_node: bool,
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    keys: KeyArgs,
}

/// Where a workload's artifact comes from.
enum ArtifactSource {
    /// To be uploaded; what an image was packed into goes with it.
    File(LocalFile, Box<LocalArtifact>),
    /// In a bucket.
    Stored(Artifact),
}

/// A workload of the file with what is known of it before anything is sent.
struct Resolved<'a> {
    wanted: &'a Wanted,
    r#type: WorkloadType,
    auction: AuctionRequest,
    /// Where it may run; anywhere if empty.
    nodes: Vec<NodeId>,
    /// What it is uploaded to, if it has to be.
    bucket: BucketArgs,
    artifact: ArtifactSource,
    revision: Revision,
}

/// What is the same for all workloads of a file.
#[derive(Clone, Copy)]
struct How<'a> {
    args: &'a ApplyArgs,
    project: &'a str,
    keys: &'a Keys,
    session: &'a Session,
    env: &'a Env,
}

/// Compares and does what is missing.
pub(crate) async fn run(args: &ApplyArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let manifest = Manifest::read(&args.file, |name| env.variable(name))?;
    let keys = args.keys.load(env, output)?;
    let mut session = session::open(connection, env).await?;
    session.client = session.client.trusting_unsigned_nodes(args.unsigned_node);
    let mut resolved = Vec::new();
    for wanted in &manifest.workloads {
        let how = How { args, project: &manifest.project, keys: &keys, session: &session, env };
        let found = resolve(wanted, how, output).await;
        resolved.push(found.with_context(|| format!("{}: workloads.{}", args.file.display(), wanted.name))?);
    }
    let more = WorkloadPingRequest { ended: true, ..WorkloadPingRequest::default() };
    let Found { running, ended } = session.client.find(None, &more, session.discovery_timeout).await?;
    let issuer = keys.issuer.public_key();
    let comparison = Comparison { running: &running, ended: &ended, issuer: &issuer };
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
            orphan.stop(&session.client, &keys.issuer).await?;
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
async fn resolve<'a>(wanted: &'a Wanted, how: How<'_>, output: &Output) -> anyhow::Result<Resolved<'a>> {
    let How { args, project, keys, session, env } = how;
    let nodes = match (wanted.nodes.as_slice(), args.nodes.as_slice()) {
        (named, []) => named.to_vec(),
        ([], trusted) => trusted.to_vec(),
        (named, trusted) => named.iter().filter(|node| trusted.contains(node)).cloned().collect(),
    };
    if nodes.is_empty() && !args.nodes.is_empty() {
        let why = "none of its nodes is among those of --node or NEX_TRUSTED_NODES; next: change either";
        return Err(Usage(why.to_owned()).into());
    }
    let (r#type, mut auction, source) = match &wanted.source {
        Source::File(file) => {
            let local = match Remote::of(file)? {
                Some(remote) => Box::pin(pull_for_nodes(&remote, &args.registry, env, session, output)).await?,
                None => {
                    let local = LocalArtifact::open(file, wanted.r#type, output)?;
                    // What is no image is not meant.
                    if local.r#type == WorkloadType::Oci {
                        args.registry.is_of_registry(file.display())?;
                    }
                    local
                }
            };
            let read = LocalFile::read(local.file()).await?;
            (local.r#type, local.auction.clone(), ArtifactSource::File(read, Box::new(local)))
        }
        Source::Stored(location) => {
            let artifact = session.client.locate(location, session.jetstream_domain.as_deref()).await?;
            let r#type = wanted.r#type.unwrap_or(WorkloadType::Native);
            let auction = AuctionRequest { workload_types: Some(vec![r#type.to_string()]), ..AuctionRequest::default() };
            (r#type, auction, ArtifactSource::Stored(artifact))
        }
    };
    if !wanted.tags.is_empty() {
        auction.tags = Some(wanted.tags.clone());
    }
    let Settings { triggers, http, durable, policy, .. } = &wanted.settings;
    let triggers = Triggers { subjects: triggers.clone(), http: http.clone(), durable: durable.clone() };
    triggers.fit(r#type, policy.as_ref().is_some_and(|policy| policy.job.is_some()))?;
    policy::fits(wanted.settings.policy.as_ref(), r#type)?;
    let isolation = check::isolation(wanted.settings.isolation, r#type, wanted.settings.machine.is_some())?;
    auction.isolation = isolation.map(|isolation| isolation.to_string());
    if wanted.settings.environment.contains_key(NATS_CREDS) || wanted.settings.secrets.contains_key(NATS_CREDS) {
        check::takes_credentials(r#type)?;
    }
    check::secrets_fit(r#type, wanted.settings.policy.as_ref(), &wanted.settings.secrets)?;
    let versions = session.secret_versions(wanted.settings.secrets.values(), &keys.issuer).await?;
    let (ArtifactSource::File(LocalFile { digest, .. }, _) | ArtifactSource::Stored(Artifact { digest, .. })) = &source;
    let revision = Revision::new(project, digest, (&wanted.name, r#type), (&wanted.settings, &versions), &keys.issuer)
        .context("cannot sign; next: give an issuer file that holds a seed (S…)")?;
    Ok(Resolved { wanted, r#type, auction, nodes, bucket: args.bucket, artifact: source, revision })
}

async fn apply(one: &Resolved<'_>, change: &Change, keys: &Keys, session: &Session, output: &Output) -> anyhow::Result<()> {
    if !change.replace.is_empty() || change.start > 0 {
        let settings = &one.wanted.settings;
        let asked = AuctionRequest {
            issuer: Some(keys.issuer.public_key()),
            memory_mib: settings.limits.memory_mib,
            machine_class: settings.machine.clone(),
            triggers: subjects(one),
            replaces: (!change.replace.is_empty()).then(|| change.name.to_string()),
            ..one.auction.clone()
        };
        let auction = session.client.auction(&asked, session.discovery_timeout).await?;
        note_listeners(&auction, !settings.http.is_empty(), output);
        let targets = targets(&auction, change, one)?;
        let artifact = match &one.artifact {
            ArtifactSource::Stored(artifact) => artifact.clone(),
            ArtifactSource::File(file, local) => {
                let file = LocalFile { path: local.file().to_owned(), ..file.clone() };
                Box::pin(upload(file, one.bucket, &one.wanted.name, session, output)).await?.artifact
            }
        };
        let deployment = deployment(one, artifact);
        let mut copies = Copies::of(&change.name, change.replace.clone());
        let deploy = Deploy { deployment: &deployment, keys, is_default_trigger: false, waits: false, stops_surplus: false };
        for (response, node) in deploy.replace(&targets, &mut copies, session, output).await? {
            output.note(format_args!("Started {} ({}) on node {node}", response.name, response.id));
        }
    }
    for surplus in &change.stop {
        surplus.stop(&session.client, &keys.issuer).await?;
        output.note(format_args!("Stopped {} ({}) on node {}", surplus.name, surplus.id, surplus.node));
    }
    Ok(())
}

/// Where each new copy goes: a replaced one stays on its node where there are several, and new ones spread over those who bid.
fn targets(auction: &Auction, change: &Change, one: &Resolved<'_>) -> anyhow::Result<Vec<Target>> {
    let stay = change.unchanged + change.replace.len() + change.start > 1;
    let replaced = change.replace.iter().map(|old| stay.then(|| old.node.clone()));
    let wishes: Vec<_> = replaced.chain(std::iter::repeat_n(None, change.start)).collect();
    Placement { auction, allowed: &one.nodes, spread: one.wanted.spread }.place(&wishes, &change.kept_on)
}

/// The subjects that it will be called on: a function's name, where it has no trigger.
fn subjects(one: &Resolved<'_>) -> Vec<String> {
    let Wanted { name, settings, .. } = one.wanted;
    if settings.has_triggers() || !one.r#type.is_function() { settings.triggers.clone() } else { vec![name.to_string()] }
}

fn deployment(one: &Resolved<'_>, artifact: Artifact) -> Deployment {
    let wanted = one.wanted;
    let Wanted { name, settings, settle, .. } = wanted;
    let is_job = settings.policy.as_ref().is_some_and(|policy| policy.job.is_some());
    let fresh = Deployment::new(name.clone(), one.r#type, artifact);
    Deployment {
        description: settings.description.clone(),
        argv: settings.argv.clone(),
        environment: settings.environment.clone(),
        secrets: settings.secrets.clone(),
        essential: settings.essential,
        triggers: if settings.has_triggers() { settings.triggers.clone() } else { fresh.triggers },
        http: settings.http.clone(),
        durable: settings.durable.clone(),
        limits: settings.limits,
        machine_class: settings.machine.clone(),
        isolation: settings.isolation,
        settle: match settle {
            Some(Settle(time)) => *time,
            None => (!one.r#type.is_function() && !is_job).then_some(SETTLE),
        },
        policy: settings.policy.clone(),
        revision: Some(one.revision.to_string()),
        placement: RequestedPlacement {
            nodes: wanted.nodes.iter().map(ToString::to_string).collect(),
            tags: wanted.tags.clone(),
            spread: wanted.spread,
        },
        ..fresh
    }
}

fn print(changes: &[Change], orphans: &[StopTarget], args: &ApplyArgs, output: &mut Output) -> anyhow::Result<()> {
    let copies = |count: usize| if count == 1 { "1 copy".to_owned() } else { format!("{count} copies") };
    for change in changes {
        let Change { name, unchanged, replace, start, stop, why, .. } = change;
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
    for StopTarget { node, id, name, .. } in orphans {
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
