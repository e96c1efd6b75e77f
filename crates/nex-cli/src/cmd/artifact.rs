//! `nex artifact`: what lies in the bucket for uploads, and its removal.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use nex_client::artifact::DEFAULT_BUCKET;
use nex_client::artifact::stored::{StoredArtifact, unused};
use nex_client::discover::Running;
use nex_protocol::deploy::{InvalidLocation, Location};
use nex_protocol::id::WorkloadName;
use serde_json::{Value, json};

use super::ps::ago;
use crate::check::{self, Usage};
use crate::output::Output;
use crate::session::Session;
use crate::table::{Column, Grid, titled};

/// `nex artifact`
#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactCommand {
    /// List what was uploaded for the namespace, and how many workloads run it
    Ls(LsArgs),
    /// Remove artifacts; what runs from them goes on
    Rm(RmArgs),
    /// Remove what no workload of the namespace runs, and parts of uploads that were never finished
    Gc(GcArgs),
}

/// `nex artifact ls`
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only those of this workload
    #[arg(value_name = "NAME")]
    name: Option<WorkloadName>,
    /// Whatever is in the bucket: other namespaces' artifacts and objects with names of their own, too
    #[arg(long, short)]
    all: bool,
    /// The bucket
    #[arg(long, value_name = "NAME", default_value = DEFAULT_BUCKET)]
    bucket: String,
}

/// `nex artifact rm`
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Where it lies: nats://BUCKET/key, as `nex artifact ls --wide` shows it; repeatable
    #[arg(value_name = "URL", required = true, value_parser = location)]
    urls: Vec<Location>,
    /// Also if a workload runs it: once its node has lost its copy, it cannot come back
    #[arg(long)]
    force: bool,
}

fn location(text: &str) -> Result<Location, String> {
    text.parse().map_err(|error: InvalidLocation| format!("{error}; next: take it from `nex artifact ls --wide`"))
}

/// `nex artifact gc`
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// How many versions of each workload's file stay, used or not, the newest first
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    keep: usize,
    /// Only what was uploaded longer ago than this
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = check::duration)]
    older_than: Duration,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// The bucket
    #[arg(long, value_name = "NAME", default_value = DEFAULT_BUCKET)]
    bucket: String,
}

/// Runs it.
pub(crate) async fn run(command: &ArtifactCommand, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    match command {
        ArtifactCommand::Ls(args) => ls(args, session, output).await,
        ArtifactCommand::Rm(args) => rm(args, session, output).await,
        ArtifactCommand::Gc(args) => gc(args, session, output).await,
    }
}

async fn stored(bucket: &str, session: &Session) -> anyhow::Result<(Vec<StoredArtifact>, Vec<Running>)> {
    let running = session.client.workloads(None, session.discovery_timeout).await?;
    Ok((Box::pin(session.client.artifacts(bucket, session.jetstream_domain.as_deref())).await?, running))
}

async fn ls(args: &LsArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let (stored, running) = stored(&args.bucket, session).await?;
    let namespace = session.client.namespace();
    let wanted = |artifact: &&StoredArtifact| match &artifact.origin {
        Some(origin) => {
            (args.all || origin.namespace == *namespace) && args.name.as_ref().is_none_or(|name| origin.workload == *name)
        }
        None => args.all && args.name.is_none(),
    };
    let found: Vec<&StoredArtifact> = stored.iter().filter(wanted).collect();
    if output.is_json() {
        return output.document(&found.iter().map(|artifact| as_json(artifact, &running)).collect::<Vec<_>>());
    }
    if found.is_empty() {
        return output.line(format_args!("No artifacts of namespace {namespace} in bucket {}", args.bucket));
    }
    output.table(&table(&found, &running, Timestamp::now()))
}

async fn rm(args: &RmArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let running = session.client.workloads(None, session.discovery_timeout).await?;
    for url in &args.urls {
        let text = url.to_string();
        let user = running.iter().find(|running| running.workload.artifact.as_ref() == Some(&text));
        if let Some(Running { workload, .. }) = user.filter(|_| !args.force) {
            let why = format!("{url} is what '{}' ({}) runs; next: stop that first, or say --force", workload.name, workload.id);
            return Err(Usage(why).into());
        }
    }
    for url in &args.urls {
        session.client.remove_artifact(url, session.jetstream_domain.as_deref()).await?;
        output.note(format_args!("Removed {url}"));
    }
    if output.is_json() { output.document(&json!({ "removed": args.urls })) } else { Ok(()) }
}

async fn gc(args: &GcArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let (stored, running) = stored(&args.bucket, session).await?;
    let before =
        Timestamp::now().as_millisecond().saturating_sub_unsigned(u64::try_from(args.older_than.as_millis()).unwrap_or(u64::MAX));
    let unused = unused(&stored, session.client.namespace(), &running, args.keep, before);
    if !args.dry_run {
        for artifact in &unused {
            let removed = session.client.remove_artifact(&artifact.location, session.jetstream_domain.as_deref()).await;
            removed.with_context(|| format!("{} was not removed", artifact.location))?;
        }
    }
    let domain = session.jetstream_domain.as_deref();
    let unfinished = Box::pin(session.client.unfinished_uploads(&args.bucket, before, domain)).await?;
    for upload in unfinished.iter().filter(|_| !args.dry_run) {
        session.client.remove_unfinished(&args.bucket, upload, domain).await?;
    }
    if output.is_json() {
        let removed: Vec<_> = unused.iter().map(|artifact| as_json(artifact, &running)).collect();
        return output.document(&json!({ "dry_run": args.dry_run, "removed": removed, "unfinished": unfinished.len() }));
    }
    if !unused.is_empty() && args.dry_run {
        output.table(&table(&unused, &running, Timestamp::now()))?;
    }
    let bytes: u64 = unused.iter().map(|artifact| artifact.bytes).sum();
    let (count, would) = (unused.len(), if args.dry_run { "would be " } else { "" });
    output.line(format_args!("{count} of {} artifacts ({bytes} bytes) {would}removed", stored.len()))?;
    if unfinished.is_empty() {
        return Ok(());
    }
    output.line(format_args!("{} uploads that were never finished {would}removed", unfinished.len()))
}

fn as_json(artifact: &StoredArtifact, running: &[Running]) -> Value {
    json!({
        "url": artifact.location.to_string(), "bytes": artifact.bytes, "uploaded": artifact.uploaded_ms / 1_000,
        "digest": artifact.digest.map(|digest| digest.to_string()), "used_by": artifact.users(running),
        "namespace": artifact.origin.as_ref().map(|origin| &origin.namespace),
        "name": artifact.origin.as_ref().map(|origin| &origin.workload),
    })
}

fn table(artifacts: &[&StoredArtifact], running: &[Running], now: Timestamp) -> Grid {
    let columns = [
        Column::left("Name"),
        Column::left("Namespace").optional(),
        Column::right("Bytes"),
        Column::right("Uploaded"),
        Column::right("Used by"),
        Column::left("URL"),
    ];
    let row = |artifact: &&StoredArtifact| {
        let origin = artifact.origin.as_ref();
        vec![
            origin.map_or_else(|| artifact.location.key.clone(), |origin| origin.workload.to_string()),
            origin.map(|origin| origin.namespace.to_string()).unwrap_or_default(),
            artifact.bytes.to_string(),
            format!("{} ago", ago(artifact.uploaded_ms / 1_000, now)),
            artifact.users(running).to_string(),
            artifact.location.to_string(),
        ]
    };
    titled("Artifacts", &columns, artifacts.iter().map(row))
}
