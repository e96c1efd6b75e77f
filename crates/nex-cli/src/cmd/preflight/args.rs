//! The arguments of `node preflight`.

use clap::Args;

use super::starter::Init;
use crate::args::NodeArgs;
use crate::registry::RegistryArgs;

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
