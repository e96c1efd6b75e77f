//! `nex rollback`: brings back the version of a workload that ran before, as it was deployed then.
//!
//! Nodes keep for a day how what somebody stopped was deployed, sealed to who deployed it; a version that was replaced was stopped.

use anyhow::Context as _;
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use nex_client::deploy::Deployment;
use nex_client::discover::{Ended, Found, Running, open_settings};
use nex_protocol::control::{AuctionRequest, EndedWorkload, ExitCause, WorkloadPingRequest};
use nex_protocol::deploy::DeployedSettings;
use nex_protocol::id::{NodeId, WorkloadName};
use serde_json::json;

use super::deploy::{Copies, Deploy};
use crate::args::{ConnectionArgs, KeyArgs};
use crate::complete;
use crate::env::Env;
use crate::output::Output;
use crate::placement::Placement;
use crate::session::{self, Session};

/// `nex rollback`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex rollback shop                     the version before the one that runs, in place of every copy of it
  nex rollback shop --dry-run           which one that is
  nex rollback shop --to cpv1o2s0tq5c73f0abcd
                                        the version that this workload of `nex ps -a` was

Nodes keep for a day how what was stopped or replaced was deployed, and tell nobody but who deployed it. A file for
`nex apply` still says what it said: it brings the newer version back.")]
pub(crate) struct RollbackArgs {
    /// Name of the workload
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::workloads))]
    name: WorkloadName,
    /// The version that this workload was, by its id [default: the last one that is not the one that runs]
    #[arg(long, value_name = "ID")]
    to: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

/// What tells a version from others: by what its deployer does, and its artifact.
#[derive(Debug, PartialEq, Eq)]
struct Version<'a> {
    revision: Option<&'a str>,
    artifact: Option<&'a str>,
}

impl<'a> Version<'a> {
    fn of_ended(ended: &'a EndedWorkload) -> Self {
        Self { revision: ended.revision.as_deref(), artifact: ended.digest.as_deref() }
    }

    /// What runs tells its artifact by where it lies only; two versions without a revision are told apart by nobody.
    fn is_of(&self, running: &Running) -> bool {
        self.revision.is_some() && self.revision == running.workload.revision.as_deref()
    }
}

/// Deploys the version before.
pub(crate) async fn run(args: &RollbackArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let keys = args.keys.load(env, output)?;
    let session = session::open(connection, env).await?;
    let issuer = keys.issuer.public_key();
    let asked = WorkloadPingRequest { ended: true, settings: true, ..WorkloadPingRequest::default() };
    let Found { running, ended } = session.client.find(Some(args.name.as_str()), &asked, session.discovery_timeout).await?;
    let copies = Copies::among(&running, &args.name, &issuer, output);
    let chosen = choose(args, &running, &ended, &issuer)?;
    let before = &chosen.workload;
    let unknown = || {
        format!(
            "how {} was deployed is told to nobody but the curve key that deployed it; next: give its file with --xkey (~/.nex/publisher.xk \
             of whoever deployed it)",
            before.id
        )
    };
    let settings = before.settings.as_ref().and_then(|settings| open_settings(settings, &keys.sender)).with_context(unknown)?;
    let stopped_with_it = ended.iter().filter(|it| it.workload.issuer == issuer && is_stopped(&it.workload));
    let as_many = stopped_with_it.filter(|it| Version::of_ended(&it.workload) == Version::of_ended(before)).count();
    let wishes: Vec<Option<NodeId>> = match copies.count() == 0 {
        true => vec![None; as_many.max(1)],
        false => copies.nodes(),
    };
    let deployment = copies.spare(prepare(&args.name, before, settings, &session).await)?;
    if args.dry_run {
        return print_plan(chosen, &deployment, copies.count(), output);
    }
    let asked = AuctionRequest {
        issuer: Some(issuer),
        workload_types: Some(vec![deployment.r#type.to_string()]),
        memory_mib: deployment.limits.memory_mib,
        machine_class: deployment.machine_class.clone(),
        isolation: deployment.isolation.map(|isolation| isolation.to_string()),
        triggers: deployment.triggers.clone(),
        replaces: (copies.count() > 0).then(|| args.name.to_string()),
        ..AuctionRequest::default()
    };
    let auction = copies.spare(session.client.auction(&asked, session.discovery_timeout).await.map_err(Into::into))?;
    let placement = Placement { auction: &auction, allowed: &[], spread: false };
    let targets = copies.spare(placement.place(&wishes, &[]))?;
    output.note(format_args!("Back to what {} was, which was stopped on node {}", before.id, chosen.node));
    Deploy { deployment: &deployment, keys: &keys, is_default_trigger: false, waits: false, stops_surplus: false }
        .run(&targets, copies, &session, output)
        .await
}

/// Only what was stopped was well until then.
fn is_stopped(ended: &EndedWorkload) -> bool {
    ended.exit.cause == ExitCause::Stopped
}

/// The ended workload to go back to.
fn choose<'a>(args: &RollbackArgs, running: &[Running], ended: &'a [Ended], issuer: &str) -> anyhow::Result<&'a Ended> {
    let (name, ps) = (&args.name, "`nex ps -a`");
    let mut ours: Vec<&Ended> =
        ended.iter().filter(|it| it.workload.issuer == issuer && it.workload.name == name.as_str()).collect();
    ours.sort_by_key(|it| it.workload.exit.at);
    if let Some(id) = &args.to {
        let named = ours.iter().find(|it| it.workload.id == *id);
        let named = named.with_context(|| {
            format!("no workload {id} of ours with the name '{name}' has ended within a day; next: see which did with {ps}")
        })?;
        anyhow::ensure!(
            is_stopped(&named.workload),
            "{id} was not stopped but ended by itself ({}): how such a one was deployed is not kept; next: choose another of {ps}",
            named.workload.exit.reason
        );
        return Ok(named);
    }
    let is_another =
        |it: &&&Ended| is_stopped(&it.workload) && !running.iter().any(|now| Version::of_ended(&it.workload).is_of(now));
    ours.iter().rev().find(is_another).copied().with_context(|| {
        format!(
            "no other version of '{name}' of ours was stopped or replaced within a day; next: see what ended with {ps}, or deploy the \
             one you want"
        )
    })
}

/// What was deployed then, of the artifact that lies where it lay.
async fn prepare(
    name: &WorkloadName,
    before: &EndedWorkload,
    settings: DeployedSettings,
    session: &Session,
) -> anyhow::Result<Deployment> {
    let location = settings.request.location.clone().context("nobody knows where its file lies")?;
    let domain = settings.request.jsdomain.clone().filter(|domain| !domain.is_empty());
    let artifact = session.client.locate(&location, domain.as_deref()).await;
    let artifact = artifact.with_context(|| format!("the file that {} ran is not to be had any more", before.id))?;
    let now = artifact.digest.to_string();
    anyhow::ensure!(
        before.digest.as_ref().is_none_or(|then| *then == now),
        "at {location} lies another file now than the one that {} ran; next: upload that one again and deploy it",
        before.id
    );
    Ok(Deployment::again(name.clone(), settings, artifact)?)
}

fn print_plan(chosen: &Ended, deployment: &Deployment, copies: usize, output: &mut Output) -> anyhow::Result<()> {
    let Ended { node, workload, .. } = chosen;
    let location = deployment.artifact.location.to_string();
    if output.is_json() {
        return output.document(&json!({
            "to": workload.id, "node_id": node, "name": workload.name, "stopped_at": workload.exit.at, "location": location,
            "digest": deployment.artifact.digest, "revision": workload.revision, "replaces": copies,
        }));
    }
    let what = match copies {
        0 => "start it again; no copy runs".to_owned(),
        1 => "replace the copy that runs".to_owned(),
        copies => format!("replace {copies} copies that run"),
    };
    output.line(format_args!("{}: back to {} ({location}): {what}", workload.name, workload.id))
}
