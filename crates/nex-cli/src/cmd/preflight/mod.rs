//! `nex node preflight`: is everything here that a node needs, and how well can it confine what it runs?
//!
//! | room | what is in it |
//! |---|---|
//! | [`node`] | what every node needs, and what confines jailed processes |
//! | [`microvm`] | what microVMs need beside that |
//! | [`repair`] | installing what is missing |
//! | [`check`], [`starter`] | the list, and the configuration to begin with |

mod check;
mod microvm;
mod node;
mod repair;
mod starter;

use std::path::Path;

use clap::Args;

use super::rootfs::RegistryArgs;
use crate::args::{Cli, NodeArgs};
use crate::env::Env;
use crate::output::Output;
use starter::Init;

const EXAMPLES: &str = "Examples:
  nex node preflight                                   what is here and what is missing
  nex node preflight --init sandbox                    write config.json first
  nex node preflight --config node.json --force        install what is missing
  nex node preflight --config node.json --force --mirror /media/stick

Without a terminal nothing is asked, and without --force or --yes nothing is installed.
A mirror has the files under the names they have at their public places; their SHA-256 is pinned in nex.";

/// Arguments of `node preflight`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PreflightArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Write a starter configuration if there is none, then check
    #[arg(long, value_name = "KIND")]
    pub(crate) init: Option<Init>,
    /// Only check: ask nothing, install nothing, whatever else is said
    #[arg(long)]
    pub(crate) check: bool,
    /// Show the directories searched
    #[arg(long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) install: InstallArgs,
}

/// What may be installed, and from where.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Install what is missing and replace what is damaged or of another version, without asking
    #[arg(long)]
    pub(crate) force: bool,
    /// Install what is missing without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Compare what nex installed with the digests pinned in it
    #[arg(long)]
    pub(crate) verify: bool,
    /// Where to download from: an address, or a directory with the files in it
    #[arg(long, value_name = "URL|DIR", env = "NEX_MIRROR", hide_env_values = true)]
    pub(crate) mirror: Option<String>,
    /// What the root image is built of if it is missing, as for 'nex rootfs' [default: the agent alone]
    #[arg(long, value_name = "BASE")]
    pub(crate) base: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Of 0.2.7, which downloaded a release of itself
    #[arg(long = "install_version", hide = true)]
    pub(crate) install_version: Option<String>,
    /// Of 0.2.7, which wrote them into a file
    #[arg(long = "cni_ns", hide = true)]
    pub(crate) cni_ns: Vec<String>,
}

/// Checks, installs if asked to, prints the list, fails when something required is missing.
pub(crate) async fn run(args: &PreflightArgs, cli: &Cli, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    if let Some(kind) = args.init {
        starter::write(kind, args.node.config.as_deref().unwrap_or(Path::new("config.json")), output)?;
    }
    if args.install.install_version.is_some() {
        output.note("--install_version has no effect: everything has the version that is pinned in this nex");
    }
    if !args.install.cni_ns.is_empty() {
        output.note("--cni_ns has no effect: name servers stand in the configuration, as cni.nameservers");
    }
    let (mut checks, config) = node::configuration(&args.node);
    checks.extend(node::checks(args, &config, cli, env).await);
    let agent = args.node.agent(&config, env).ok();
    if let Some(wanted) = microvm::Wanted::of(&args.node, &config, agent.as_deref(), env)? {
        if args.verbose {
            output.note(format_args!("resources: {}", wanted.places.layout.dir().display()));
        }
        repair::repair(&wanted, args, agent.as_deref(), output).await?;
        checks.extend(wanted.checks(args.install.verify));
    }
    if args.verbose {
        let dirs = env.path.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":");
        output.note(format_args!("searched: {dirs}"));
    }
    check::print(&checks, output)?;
    match checks.iter().filter(|check| check.fails()).count() {
        0 => Ok(()),
        missing => {
            anyhow::bail!("{missing} of {} checks failed; next: do what the list says, then run preflight again", checks.len())
        }
    }
}
