//! Flags about the keys of whoever deploys.

use std::path::PathBuf;

use clap::Args;
use nex_client::deploy::Keys;

use crate::env::Env;
use crate::keys;
use crate::output::Output;

/// Whose keys sign and seal.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Keys")]
pub(crate) struct KeyArgs {
    /// Seed file of the issuer that signs [default: ~/.nex/issuer.nk]
    #[arg(long, value_name = "FILE")]
    issuer: Option<PathBuf>,
    /// Seed file of the curve key that seals the environment [default: ~/.nex/publisher.xk]
    #[arg(long, value_name = "FILE")]
    xkey: Option<PathBuf>,
}

impl KeyArgs {
    /// Loads them; missing ones in `~/.nex` are made.
    pub(crate) fn load(&self, env: &Env, output: &Output) -> anyhow::Result<Keys> {
        keys::load(self.issuer.as_deref(), self.xkey.as_deref(), env, output)
    }
}
