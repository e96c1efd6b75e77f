//! `nex run`: runs an uploaded artifact on a given node.

use std::path::PathBuf;

use clap::Args;
use nex_client::deploy::Target;
use nex_protocol::deploy::{Location, WorkloadType};
use nex_protocol::id::{NodeId, WorkloadName};

use super::deploy::{Copies, Deploy};
use crate::args::{ConnectionArgs, WorkloadArgs};
use crate::env::Env;
use crate::keys;
use crate::output::Output;
use crate::session;

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
    /// Environment variables, which only the node can read: KEY=@FILE takes the value from a file, KEY=- from standard input,
    /// KEY=@@TEXT is a text that begins with @
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
    /// Stop our older copies of the same name, on all nodes, as soon as the new one runs
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    workload: WorkloadArgs,
}

/// Deploys.
pub(crate) async fn run(args: &RunArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let plan = args.workload.plan(args.name.clone(), args.r#type, &args.environment)?;
    let keys = keys::load(args.issuer.as_deref(), args.xkey.as_deref(), env, output)?;
    let mut session = session::open(connection, env).await?;
    session.client = session.client.trusting_unsigned_nodes(args.workload.unsigned_node);
    let copies = match args.replace {
        true => {
            let running = session.client.workloads(Some(args.name.as_str()), session.discovery_timeout).await?;
            Copies::among(&running, &args.name, &keys.issuer.public_key(), output)
        }
        false => Copies::none(&args.name),
    };
    let prepared = async {
        let info = session.client.info(&args.node).await?;
        let artifact = session.client.locate(&args.url, session.jetstream_domain.as_deref()).await?;
        let target = Target::new(args.node.clone(), info.public_xkey, &info.xkey_signature)?;
        anyhow::Ok((artifact, vec![target; copies.nodes().len()]))
    };
    let (artifact, targets) = copies.spare(prepared.await)?;
    let (deployment, is_default_trigger) = plan.deployment(artifact, args.description.clone());
    Deploy { deployment: &deployment, keys: &keys, is_default_trigger }.run(&targets, copies, &session, output).await
}
