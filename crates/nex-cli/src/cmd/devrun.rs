//! `nex devrun`: runs a local file as a workload on the best node.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{ArgAction, Args};
use nex_client::artifact::DEFAULT_BUCKET_BYTES;
use nex_client::auction::{Auction, NobodyBids};
use nex_client::deploy::Target;
use nex_protocol::deploy::WorkloadType;
use nex_protocol::id::{NodeId, WorkloadName};

use super::deploy::{Copies, Deploy};
use super::upload::upload;
use crate::args::{ConnectionArgs, WorkloadArgs};
use crate::check::{self, Usage};
use crate::env::Env;
use crate::keys;
use crate::output::Output;
use crate::session;
use crate::sniff::sniff;

/// `nex devrun`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex devrun ./echo.js                          a function, called by its name: nex call echojs
  nex devrun ./shout.wasm --trigger_subject loud
  nex devrun ./service PORT=8080 --argv \"-v --name 'my service'\"")]
pub(crate) struct DevrunArgs {
    /// An ELF program, a `#!` script, WebAssembly or JavaScript
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Environment variables, which only the node can read: KEY=@FILE takes the value from a file, KEY=- from standard input,
    /// KEY=@@TEXT is a text that begins with @
    #[arg(value_name = "KEY=VALUE")]
    environment: Vec<String>,
    /// Name of the workload [default: the file's name without dots]
    #[arg(long)]
    name: Option<WorkloadName>,
    /// native, v8 (or js), wasm [default: by the file's content]
    #[arg(long, value_name = "TYPE")]
    r#type: Option<WorkloadType>,
    /// Stop our older copies of the same name, on all nodes, as soon as the new one runs (the default)
    #[arg(long, overrides_with = "no_stop", action = ArgAction::SetTrue)]
    stop: bool,
    /// Leave older copies running
    #[arg(long = "no-stop", overrides_with = "stop", action = ArgAction::SetTrue)]
    no_stop: bool,
    /// Only on one of these nodes; repeatable [default: whichever suits best]
    #[arg(long = "node", value_name = "NODE", env = "NEX_TRUSTED_NODES", hide_env_values = true, value_delimiter = ',', value_parser = check::trusted_node)]
    nodes: Vec<NodeId>,
    /// Bound of the bucket for uploads when it is created, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_BUCKET_BYTES, value_parser = clap::value_parser!(i64).range(1..))]
    bucketmaxbytes: i64,
    #[command(flatten)]
    workload: WorkloadArgs,
}

/// Detects the type, finds a node, uploads, deploys and stops older copies.
pub(crate) async fn run(args: &DevrunArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let sniffed = sniff(&args.file, args.r#type)?;
    let name = args.workload_name()?;
    let plan = args.workload.plan(name, sniffed.r#type, &args.environment)?;
    let keys = keys::load(None, None, env, output)?;
    let mut session = session::open(connection, env).await?;
    session.client = session.client.trusting_unsigned_nodes(args.workload.unsigned_node);

    let wanted = sniffed.auction();
    let (auction, copies) = tokio::join!(
        session.client.auction(&wanted, session.discovery_timeout),
        session.client.workloads(Some(plan.name().as_str()), session.discovery_timeout),
    );
    let copies = match args.no_stop {
        true => Copies::none(plan.name()),
        false => Copies::among(&copies?, plan.name(), &keys.issuer.public_key(), output),
    };
    let prepared = async {
        let targets = targets(&auction?, &copies, &args.nodes)
            .with_context(|| format!("{} is {}, run as {}", args.file.display(), sniffed.what, plan.r#type()))?;
        Ok((targets, Box::pin(upload(&args.file, args.bucketmaxbytes, plan.name(), &session, output)).await?))
    };
    let (targets, uploaded) = copies.spare(prepared.await)?;
    let (deployment, is_default_trigger) = plan.deployment(uploaded.artifact, "Workload published in devmode".into());
    Deploy { deployment: &deployment, keys: &keys, is_default_trigger }.run(&targets, copies, &session, output).await
}

/// Where each copy goes: where the one that it replaces should stay, if that node bids, or else wherever suits best.
fn targets(auction: &Auction, copies: &Copies, nodes: &[NodeId]) -> Result<Vec<Target>, NobodyBids> {
    let best = |node: &Option<NodeId>| {
        let own = node.as_slice().iter().filter(|node| nodes.is_empty() || nodes.contains(node));
        let own = own.map(|node| auction.best_of(std::slice::from_ref(node))).find_map(Result::ok);
        own.map_or_else(|| auction.best_of(nodes), Ok).map(|bid| bid.target)
    };
    copies.nodes().iter().map(best).collect()
}

impl DevrunArgs {
    /// The given name, or the file's name without dots. It is also the object's key.
    fn workload_name(&self) -> Result<WorkloadName, Usage> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let base = self.file.file_name().unwrap_or_default().to_string_lossy();
        let without_dots = base.replace('.', "");
        without_dots
            .parse()
            .map_err(|error| Usage(format!("the file's name makes no workload name: {error}; next: give one with --name")))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::sniff::Sniffed;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        devrun: DevrunArgs,
    }

    fn args(line: &[&str]) -> DevrunArgs {
        Line::try_parse_from(["x"].iter().chain(line)).unwrap().devrun
    }

    #[test]
    fn the_name_is_the_files_without_dots_unless_given() {
        assert_eq!(args(&["/a/echofunction.js"]).workload_name().unwrap().as_str(), "echofunctionjs");
        assert_eq!(args(&["x.y.wasm", "--name", "loud"]).workload_name().unwrap().as_str(), "loud");
        assert!(args(&["/a/my file.js"]).workload_name().unwrap_err().to_string().contains("--name"));
    }

    #[test]
    fn the_last_of_stop_and_no_stop_counts() {
        assert!(!args(&["x"]).no_stop);
        assert!(args(&["x", "--stop", "--no-stop"]).no_stop);
        assert!(!args(&["x", "--no-stop", "--stop"]).no_stop);
    }

    #[test]
    fn a_program_asks_for_its_processor() {
        let sniffed = Sniffed { r#type: WorkloadType::Native, what: "an ELF program", arch: Some("arm64"), os: Some("linux") };
        let request = sniffed.auction();
        assert_eq!((request.arch.as_deref(), request.os.as_deref()), (Some("arm64"), Some("linux")));
        assert_eq!(request.workload_types, Some(vec!["native".to_owned()]));
    }
}
