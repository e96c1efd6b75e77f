//! `nex rootfs`: builds the root image that all microVMs of a node share.

use std::path::PathBuf;

use clap::Args;
use indicatif::HumanBytes;
use nex_image::rootfs::{Built, RootfsSpec, build};
use serde_json::json;

use crate::args::find_agent;
use crate::check::Usage;
use crate::env::Env;
use crate::output::Output;
use crate::progress::steps_bar;
use crate::registry::RegistryArgs;

const EXAMPLES: &str = "Bases:
  DIR                       a directory, taken as it is
  FILE.tar, .tar.gz, .zst   a tarball
  oci:DIR[:TAG]             an OCI layout, as 'skopeo copy docker://… oci:DIR:TAG' writes it
  oci-archive:FILE[:TAG]    the same in one file
  IMAGE[:TAG][@DIGEST]      an image of a registry, e.g. debian:bookworm-slim
Without a base the image holds the agent alone, which is all that functions need.

Examples:
  nex rootfs -o rootfs.img
  nex rootfs alpine:3.22 -o rootfs.img
  nex rootfs ./tree -o rootfs.img --agent ./nex-agent

Neither root nor a container engine is needed. The same input gives the same bytes.";

/// `nex rootfs`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RootfsArgs {
    /// What is in the image beside the agent [default: nothing]
    #[arg(value_name = "BASE", conflicts_with = "image")]
    base: Option<String>,
    /// The image to write
    #[arg(long, short, value_name = "FILE", default_value = "rootfs.img")]
    output: PathBuf,
    /// The nex-agent program [default: beside nex, then in PATH]
    #[arg(long, value_name = "FILE", env = "NEX_AGENT", hide_env_values = true)]
    agent: Option<PathBuf>,
    /// The base, as 0.2.7 names it
    #[arg(long, value_name = "IMAGE", hide = true)]
    image: Option<String>,
    /// Latest time of anything in the image, in seconds since 1970
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", hide_env_values = true)]
    mtime: Option<u64>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Of 0.2.7, where a script ran in a container
    #[arg(long, value_name = "FILE", hide = true)]
    script: Option<PathBuf>,
    /// Of 0.2.7; an image is as large as what is in it
    #[arg(long, value_name = "BYTES", hide = true)]
    size: Option<u64>,
}

/// Volume label of images: name and version.
pub(crate) fn label() -> String {
    format!("nex {}", env!("CARGO_PKG_VERSION"))
}

/// Builds the image.
pub(crate) async fn run(args: &RootfsArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    if let Some(script) = &args.script {
        let script = script.display();
        let why = format!(
            "--script {script}: no container is started, so no script can run in one; next: run it where the base is made (a Dockerfile, a directory), and name that base"
        );
        return Err(Usage(why).into());
    }
    if args.size.is_some() {
        output.note("--size has no effect: an image is as large as what is in it");
    }
    let named = args.base.as_deref().or(args.image.as_deref());
    let base = args.registry.base(named, env).await?;
    let agent = find_agent(args.agent.as_deref(), &[], env)?;
    let spec = RootfsSpec { base, agent, label: label(), mtime: args.mtime };
    let mut report = steps_bar(output);
    let built = tokio::task::block_in_place(|| build(&spec, &args.output, &mut report))?;
    drop(report);
    let Built { bytes, entries, sha256, base_digest } = built;
    let path = args.output.display();
    if output.is_json() {
        let agent = &spec.agent;
        return output.document(&json!({
            "path": args.output, "bytes": bytes, "entries": entries, "sha256": sha256, "base_digest": base_digest, "agent": agent,
        }));
    }
    output.line(format_args!("wrote {path}: {}, {entries} entries, sha256:{sha256}", HumanBytes(bytes)))?;
    match base_digest {
        Some(digest) => output.line(format_args!("base: {} ({digest})", named.unwrap_or_default())),
        None => Ok(()),
    }
}
