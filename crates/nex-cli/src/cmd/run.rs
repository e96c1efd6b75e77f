//! `nex run`: runs an uploaded artifact, or an image of a registry or of the namespace, on a given node.

use std::path::Path;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use nex_client::artifact::LocalFile;
use nex_client::deploy::Target;
use nex_protocol::deploy::{InvalidLocation, Location, WorkloadType};
use nex_protocol::id::WorkloadName;

use super::deploy::{Copies, Deploy, by_hand};
use super::upload::{BucketArgs, upload};
use crate::args::{ConnectionArgs, KeyArgs, WorkloadArgs};
use crate::check::Usage;
use crate::complete;
use crate::env::Env;
use crate::node_ref::NodeRef;
use crate::output::Output;
use crate::registry::{RegistryArgs, pull_for_node};
use crate::remote::Remote;
use crate::session;

/// `nex run`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  nex run nats://NEXCLIFILES/echo NB… GREETING=hi --name echo --issuer my.nk --xkey my.xk
  nex run oci://ghcr.io/me/shop:v3 NB… --name shop
  nex run image://shop:v3 NB… --name shop
  nex run nats://NEXCLIFILES/report NB… --name report --job --retries 2 --deadline 10m --wait")]
pub(crate) struct RunArgs {
    /// Where the artifact lies: nats://BUCKET/key; or an image of a registry, oci://HOST/NAME:TAG, or of the namespace,
    /// image://NAME:TAG, which is pulled and uploaded
    #[arg(value_name = "URL", value_parser = source)]
    url: Source,
    /// Id of the node to run it (N…), or its name
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(complete::nodes))]
    node: NodeRef,
    /// Environment variables, which only the node can read: KEY=@FILE takes the value from a file, KEY=- from standard input,
    /// KEY=secret:NAME is a secret of `nex secret set`, KEY=secret-file:NAME the path of a file with it, KEY=@@TEXT a text that begins
    /// with @
    #[arg(value_name = "KEY=VALUE")]
    environment: Vec<String>,
    /// Name of the workload
    #[arg(long)]
    name: WorkloadName,
    /// native, v8 (or js), wasm, oci [default: native, or oci for an image]
    #[arg(long, value_name = "TYPE")]
    r#type: Option<WorkloadType>,
    /// What it is for, for people
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// Stop our older copies of the same name, on all nodes, as soon as the new one runs
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    keys: KeyArgs,
}

/// Where an artifact comes from.
#[derive(Debug, Clone)]
enum Source {
    /// A bucket.
    Stored(Location),
    /// An image elsewhere.
    Image(Remote),
}

fn source(text: &str) -> Result<Source, String> {
    match Remote::of(Path::new(text)) {
        Ok(Some(remote)) => Ok(Source::Image(remote)),
        Ok(None) => text
            .parse()
            .map(Source::Stored)
            .map_err(|error: InvalidLocation| format!("{error}; next: for a file of this machine, `nex devrun FILE`")),
        Err(error) => Err(error.to_string()),
    }
}

impl RunArgs {
    fn workload_type(&self) -> Result<WorkloadType, Usage> {
        match (&self.url, self.r#type) {
            (Source::Image(_), None | Some(WorkloadType::Oci)) => Ok(WorkloadType::Oci),
            (Source::Image(remote), Some(_)) => Err(Usage(format!("{remote} is an image; next: leave --type out"))),
            (Source::Stored(_), named) => Ok(named.unwrap_or(WorkloadType::Native)),
        }
    }
}

/// Deploys.
pub(crate) async fn run(args: &RunArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let plan = args.workload.plan(args.name.clone(), args.workload_type()?, &args.environment)?;
    let keys = args.keys.load(env, output)?;
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
        let node = args.node.resolve(&session).await?;
        let info = session.client.info(&node).await?;
        let artifact = match &args.url {
            Source::Stored(url) => {
                args.registry.is_of_registry(url)?;
                session.client.locate(url, session.jetstream_domain.as_deref()).await?
            }
            Source::Image(remote) => {
                let image = Box::pin(pull_for_node(remote, &info, (&args.registry, env), &session, output)).await?;
                let file = LocalFile::read(image.file()).await?;
                Box::pin(upload(file, args.bucket, &args.name, &session, output)).await?.artifact
            }
        };
        let target = Target::new(node, info.public_xkey, &info.xkey_signature)?;
        anyhow::Ok((artifact, vec![target; copies.nodes().len()]))
    };
    let (artifact, targets) = copies.spare(prepared.await)?;
    let (mut deployment, is_default_trigger) = plan.deployment(artifact, args.description.clone());
    deployment.revision = Some(by_hand(&deployment, &keys, &session).await?);
    Deploy { deployment: &deployment, keys: &keys, is_default_trigger, waits: args.workload.wait, stops_surplus: false }
        .run(&targets, copies, &session, output)
        .await
}
