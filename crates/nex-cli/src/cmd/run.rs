//! `nex run`: runs an uploaded artifact on a given node. `devrun` shares its deploy.

use std::path::PathBuf;

use clap::Args;
use nex_client::deploy::{Deployment, Keys, Target};
use nex_protocol::deploy::{DeployResponse, Location, WorkloadType};
use nex_protocol::id::{NodeId, WorkloadName};
use serde_json::json;

use super::ps::next_commands;
use crate::args::{ConnectionArgs, WorkloadArgs};
use crate::env::Env;
use crate::keys;
use crate::output::Output;
use crate::session::{self, Session};

/// `nex run`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  nex run nats://NEXCLIFILES/echo NB… GREETING=hi --name echo --issuer my.nk --xkey my.xk")]
pub(crate) struct RunArgs {
    /// Where the artifact lies: nats://BUCKET/key
    #[arg(value_name = "URL")]
    url: Location,
    /// Id of the node to run it (N…)
    #[arg(value_name = "NODE")]
    node: NodeId,
    /// Environment variables; only the node can read them
    #[arg(value_name = "KEY=VALUE")]
    environment: Vec<String>,
    /// Name of the workload
    #[arg(long)]
    name: WorkloadName,
    /// Seed file of the issuer that signs [default: ~/.nex/issuer.nk]
    #[arg(long, value_name = "FILE")]
    issuer: Option<PathBuf>,
    /// Seed file of the curve key that seals the environment [default: ~/.nex/publisher.xk]
    #[arg(long, value_name = "FILE")]
    xkey: Option<PathBuf>,
    /// native, v8 (or js), wasm
    #[arg(long, value_name = "TYPE", default_value = "native")]
    r#type: WorkloadType,
    /// What it is for, for people
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    workload: WorkloadArgs,
}

/// Deploys.
pub(crate) async fn run(args: &RunArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let plan = args.workload.plan(args.name.clone(), args.r#type, &args.environment)?;
    let keys = keys::load(args.issuer.as_deref(), args.xkey.as_deref(), env, output)?;
    let mut session = session::open(connection, env).await?;
    session.client = session.client.trusting_unsigned_nodes(args.workload.unsigned_node);
    let info = session.client.info(&args.node).await?;
    let artifact = session.client.locate(&args.url, session.jetstream_domain.as_deref()).await?;
    let (deployment, is_default) = plan.deployment(artifact, args.description.clone());
    let target = Target::new(args.node.clone(), info.public_xkey, &info.xkey_signature)?;
    let deploy = Deploy { deployment: &deployment, target: &target, keys: &keys, is_default_trigger: is_default };
    deploy.run(&session, output).await.map(|_started| ())
}

/// The last step of `run` and `devrun`.
pub(crate) struct Deploy<'a> {
    pub(crate) deployment: &'a Deployment,
    pub(crate) target: &'a Target,
    pub(crate) keys: &'a Keys,
    pub(crate) is_default_trigger: bool,
}

impl Deploy<'_> {
    /// Deploys and prints the result.
    pub(crate) async fn run(&self, session: &Session, output: &mut Output) -> anyhow::Result<DeployResponse> {
        let started = session.client.deploy(self.deployment, self.target, self.keys).await?;
        let DeployResponse { id, name, .. } = &started;
        let (deployment, node) = (self.deployment, &self.target.node);
        if output.is_json() {
            output.document(&json!({
                "started": true, "id": id, "name": name, "node_id": node, "issuer": started.issuer,
                "type": deployment.r#type, "location": deployment.artifact.location.to_string(),
                "digest": deployment.artifact.digest, "bytes": deployment.artifact.bytes, "triggers": deployment.triggers,
            }))?;
            return Ok(started);
        }
        output.line(format_args!(
            "🚀 Workload '{name}' accepted. You can now refer to this workload with ID: {id} on node {node}"
        ))?;
        if self.is_default_trigger {
            output.line(format_args!("No trigger subject was given, so its name calls it: {name}"))?;
        }
        let trigger = deployment.triggers.iter().find(|subject| !subject.contains(['*', '>'])).map(String::as_str);
        output.line(next_commands(name, id, trigger, output.style()))?;
        Ok(started)
    }
}
