//! `nex devrun`: runs a local file as a workload on the best node.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{ArgAction, Args};
use clap_complete::engine::ArgValueCompleter;
use nex_client::artifact::LocalFile;
use nex_protocol::control::AuctionRequest;
use nex_protocol::deploy::{RequestedPlacement, WorkloadType};
use nex_protocol::id::{NodeId, WorkloadName};

use super::deploy::{Copies, Deploy, by_hand};
use super::upload::{BucketArgs, upload};
use super::watch::{Live, Turns, Watch};
use crate::args::{ConnectionArgs, KeyArgs, WorkloadArgs};
use crate::check::{self, Usage};
use crate::complete;
use crate::env::Env;
use crate::local::{LocalArtifact, default_name};
use crate::output::Output;
use crate::placement::{Placement, note_listeners};
use crate::registry::{RegistryArgs, pull_for_nodes};
use crate::remote::Remote;
use crate::saves::Saves;
use crate::session;

/// `nex devrun`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex devrun ./echo.js                          a function, called by its name: nex call echojs
  nex devrun ./shout.wasm --trigger_subject loud
  nex devrun ./shop.tar --argv \"--port 8080\"       an image, by 'docker save' or 'skopeo copy'
  nex devrun oci://ghcr.io/me/shop:v3           one of a registry, with the login of docker or podman
  nex devrun image://shop:v3                    one that was pushed with 'nex image push'
  nex devrun ./report.sh --job --wait           a job: its output, its exit code
  nex devrun ./echo.js --watch                  each save is live at once; its lines and errors appear here
  nex devrun ./service --copies 3 --spread      three copies, each on a node of its own
  nex devrun ./service PORT=8080 --argv \"-v --name 'my service'\"")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct DevrunArgs {
    /// An ELF program, a `#!` script, WebAssembly, JavaScript or TypeScript, or an OCI image: the directory of a layout or an archive;
    /// oci:DIR:TAG, oci-archive:FILE:TAG and docker-archive:FILE:TAG name one of several, oci://HOST/NAME:TAG one of a registry,
    /// image://NAME:TAG one of the namespace
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Environment variables, which only the node can read: KEY=@FILE takes the value from a file, KEY=- from standard input,
    /// KEY=secret:NAME is a secret of `nex secret set`, KEY=secret-file:NAME the path of a file with it, KEY=@@TEXT a text that begins
    /// with @
    #[arg(value_name = "KEY=VALUE")]
    environment: Vec<String>,
    /// Name of the workload [default: the file's name without dots]
    #[arg(long)]
    name: Option<WorkloadName>,
    /// native, v8 (or js), wasm, oci [default: by the file's content]
    #[arg(long, value_name = "TYPE")]
    r#type: Option<WorkloadType>,
    /// Stop our older copies of the same name, on all nodes, as soon as the new one runs (the default)
    #[arg(long, overrides_with = "no_stop", action = ArgAction::SetTrue)]
    stop: bool,
    /// Leave older copies running
    #[arg(long = "no-stop", overrides_with = "stop", action = ArgAction::SetTrue)]
    no_stop: bool,
    /// Only on one of these nodes; repeatable [default: whichever suits best]
    #[arg(long = "node", value_name = "NODE", env = "NEX_TRUSTED_NODES", hide_env_values = true, value_delimiter = ',', value_parser = check::trusted_node, add = ArgValueCompleter::new(complete::node_ids))]
    nodes: Vec<NodeId>,
    /// How many copies of it are to run afterwards [default: as many as run now, at least one]
    #[arg(long, visible_alias = "replicas", value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=100), conflicts_with_all = ["no_stop", "wait"])]
    copies: Option<u8>,
    /// Each copy on a node of its own, or none [default: on nodes of their own as far as there are any]
    #[arg(long)]
    spread: bool,
    /// Only on nodes that have this tag, such as region=eu; repeatable, all of them count
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = check::tag)]
    tags: Vec<(String, String)>,
    /// Deploy it again with each save, and print what it writes, until interrupted; then stop it
    #[arg(long, conflicts_with_all = ["no_stop", "wait", "job"])]
    watch: bool,
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    keys: KeyArgs,
}

/// Detects the type, finds a node, uploads, deploys and stops older copies.
pub(crate) async fn run(args: &DevrunArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let remote = Remote::of(&args.file)?;
    // Before it is read for the first time.
    let saves = args.watch.then(|| Saves::of(&args.file));
    let local = args.open_local(remote.as_ref(), output)?;
    args.check_watched(local.as_ref())?;
    let name = args.workload_name()?;
    let r#type = local.as_ref().map_or(WorkloadType::Oci, |local| local.r#type);
    let plan = args.workload.plan(name, r#type, &args.environment)?;
    let keys = args.keys.load(env, output)?;
    let mut session = session::open(connection, env).await?;
    session.client = session.client.trusting_unsigned_nodes(args.workload.unsigned_node);
    let local = match (local, &remote) {
        (None, Some(remote)) => Box::pin(pull_for_nodes(remote, &args.registry, env, &session, output)).await?,
        (local, _) => local.context("there is nothing to run")?,
    };

    let tags = (!args.tags.is_empty()).then(|| args.tags.iter().cloned().collect());
    let asked = AuctionRequest {
        issuer: Some(keys.issuer.public_key()),
        memory_mib: args.workload.limits.requested().memory_mib,
        machine_class: args.workload.machine.clone(),
        isolation: plan.isolation().map(|isolation| isolation.to_string()),
        triggers: plan.subjects(),
        replaces: (!args.no_stop).then(|| plan.name().to_string()),
        tags,
        ..local.auction.clone()
    };
    let (auction, copies) = tokio::join!(
        session.client.auction(&asked, session.discovery_timeout),
        session.client.workloads(Some(plan.name().as_str()), session.discovery_timeout),
    );
    let copies = match args.no_stop {
        true => Copies::none(plan.name()),
        false => Copies::among(&copies?, plan.name(), &keys.issuer.public_key(), output),
    };
    let prepared = async {
        let auction = auction?;
        note_listeners(&auction, plan.has_routes(), output);
        let placement = Placement { auction: &auction, allowed: &args.nodes, spread: args.spread };
        let targets = placement
            .place(&args.wishes(&copies), &[])
            .with_context(|| format!("{} is {}, run as {}", args.file.display(), local.what, plan.r#type()))?;
        Ok((targets, Box::pin(upload(LocalFile::read(local.file()).await?, args.bucket, plan.name(), &session, output)).await?))
    };
    let (targets, uploaded) = copies.spare(prepared.await)?;
    let (mut deployment, is_default_trigger) = plan.deployment(uploaded.artifact, "Workload published in devmode".into());
    deployment.placement = args.placement();
    deployment.revision = Some(copies.spare(by_hand(&deployment, &keys, &session).await)?);
    if let Some(saves) = saves {
        let (file, nodes, spread, bucket) = (args.file.as_path(), args.nodes.as_slice(), args.spread, args.bucket);
        let turns = Turns { file, named: args.r#type, session: &session, keys: &keys, asked: &asked, nodes, spread, bucket };
        let watch = Watch { file, turns, saves, is_default_trigger, denials: &connection.denials };
        return Box::pin(watch.run(Live::new(deployment, targets, copies.into_left()), output)).await;
    }
    let (waits, stops_surplus) = (args.workload.wait, args.copies.is_some());
    Deploy { deployment: &deployment, keys: &keys, is_default_trigger, waits, stops_surplus }
        .run(&targets, copies, &session, output)
        .await
}

impl DevrunArgs {
    /// Whether it goes on until it is interrupted.
    pub(crate) fn is_watching(&self) -> bool {
        self.watch
    }

    /// The file, where it is one of this machine.
    fn open_local(&self, remote: Option<&Remote>, output: &mut Output) -> anyhow::Result<Option<LocalArtifact>> {
        if remote.is_none() {
            self.registry.is_of_registry(self.file.display())?;
            self.check_file()?;
            return Ok(Some(LocalArtifact::open(&self.file, self.r#type, output)?));
        }
        if self.r#type.is_some_and(|named| named != WorkloadType::Oci) {
            return Err(Usage(format!("{} is an image; next: leave --type out", self.file.display())).into());
        }
        Ok(None)
    }

    /// What stands where the file should, if that is something else.
    fn check_file(&self) -> Result<(), Usage> {
        let text = self.file.display().to_string();
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let next = match text.split_once(['=', ':']) {
            _ if self.file.exists() => return Ok(()),
            Some(_) if text.contains("://") => "download it first; of images take oci://HOST/NAME:TAG",
            Some((key, value)) if !value.is_empty() && !text.contains(':') && key.chars().all(is_of_name) => {
                "give the file first, and its variables behind it"
            }
            _ => return Ok(()),
        };
        Err(Usage(format!("there is no file {text}; next: {next}")))
    }

    /// For each new copy the node of the one that it replaces, where there are several; as many as there are to be.
    fn wishes(&self, copies: &Copies) -> Vec<Option<NodeId>> {
        let mut wishes = copies.nodes();
        if let Some(count) = self.copies {
            wishes.resize(usize::from(count), None);
        }
        wishes
    }

    /// By what the nodes are chosen, for who deploys it again.
    fn placement(&self) -> RequestedPlacement {
        RequestedPlacement {
            nodes: self.nodes.iter().map(ToString::to_string).collect(),
            tags: self.tags.iter().cloned().collect(),
            spread: self.spread,
        }
    }

    /// Images are made of many files, which are written one after the other.
    fn check_watched(&self, local: Option<&LocalArtifact>) -> Result<(), Usage> {
        match local {
            _ if !self.watch => Ok(()),
            Some(local) if local.r#type != WorkloadType::Oci => Ok(()),
            _ => Err(Usage(format!(
                "{} is an image, and --watch is for a single file; next: leave --watch out, and deploy it when it was built",
                self.file.display()
            ))),
        }
    }

    /// The given name, or the file's name without dots.
    fn workload_name(&self) -> Result<WorkloadName, Usage> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let without_dots = default_name(&self.file)?.replace('.', "");
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
