//! `nex issuer`: whose keys count on the node of this host's state directory. The node reads the list at each deploy and stop.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use nex_node::issuers::{Issuer, Issuers};
use serde_json::{Value, json};

use crate::check::{self, Usage};
use crate::env::Env;
use crate::keys;
use crate::output::Output;
use crate::table::{Column, titled};

/// `nex issuer`
#[derive(Debug, Subcommand)]
pub(crate) enum IssuerCommand {
    /// Let a key deploy here, or as an operator stop anything here; it counts at once
    Add(AddArgs),
    /// List the keys that were added here
    Ls(LsArgs),
    /// Take keys off the list; what they have started runs on
    Rm(RmArgs),
}

/// Where the node is.
#[derive(Debug, Args)]
struct StateArgs {
    /// Where the node keeps its state [default: nex in the user's data directory]
    #[arg(long, value_name = "DIR", env = "NEX_STATE_DIR", hide_env_values = true)]
    state_dir: Option<PathBuf>,
}

/// `nex issuer add`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex issuer add me                            only you may deploy to this node from now on
  nex issuer add AB… --name ci                 and the key of the CI
  nex issuer add AB… --operator --name oncall  this key may stop what others have started, and deploys nothing
Keys named in node.json (valid_issuers, operators) count besides these.")]
pub(crate) struct AddArgs {
    /// A public key, as `nex whoami` prints it, or me
    #[arg(value_name = "KEY|me", value_parser = check::issuer)]
    key: String,
    /// Whose it is
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    name: String,
    /// Let it stop what others have started, instead of letting it deploy
    #[arg(long)]
    operator: bool,
    #[command(flatten)]
    state: StateArgs,
}

/// `nex issuer ls`
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    state: StateArgs,
}

/// `nex issuer rm`
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Public keys, or me
    #[arg(value_name = "KEY|me", required = true, value_parser = check::issuer)]
    keys: Vec<String>,
    /// Also the last key that may deploy: then everybody may, but for what node.json says
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    state: StateArgs,
}

impl StateArgs {
    fn root(&self, env: &Env) -> Result<PathBuf, Usage> {
        let root = self.state_dir.clone().or_else(|| env.data.clone());
        let none = || Usage("there is no home directory to look for a node in; next: name one with --state-dir".to_owned());
        root.map(|root| root.join("node")).ok_or_else(none)
    }
}

/// Runs it; the node itself need not run.
pub(crate) fn run(command: &IssuerCommand, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    match command {
        IssuerCommand::Add(args) => add(args, &args.state.root(env)?, env, output),
        IssuerCommand::Ls(args) => ls(&args.state.root(env)?, output),
        IssuerCommand::Rm(args) => rm(args, &args.state.root(env)?, env, output),
    }
}

fn add(args: &AddArgs, root: &Path, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let key = keys::named_issuer(Some(&args.key), env)?.unwrap_or_default();
    let mut issuers = Issuers::read(root)?;
    let was_open = !issuers.are_closed();
    let more = Issuer { name: args.name.clone(), deploys: !args.operator, operates: args.operator };
    let now = issuers.add(&key, more)?;
    issuers.write(root)?;
    if output.is_json() {
        return output.document(&as_json(&key, &now));
    }
    output.line(format_args!("✅ {key} {}", rights(&now)))?;
    if was_open && issuers.are_closed() {
        output.line("Only listed keys may deploy to this node from now on, and those of valid_issuers in its configuration")?;
    }
    Ok(())
}

fn ls(root: &Path, output: &mut Output) -> anyhow::Result<()> {
    let issuers = Issuers::read(root)?;
    if output.is_json() {
        return output.document(&issuers.iter().map(|(key, issuer)| as_json(key, issuer)).collect::<Vec<_>>());
    }
    if issuers.iter().next().is_none() {
        return output.line(format_args!(
            "No keys were added in {}: who may deploy is what the node's configuration says, or everybody",
            root.display()
        ));
    }
    let columns = [Column::left("Key").whole(), Column::left("May"), Column::left("Name")];
    let row = |(key, issuer): (&str, &Issuer)| vec![key.to_owned(), rights(issuer).to_owned(), issuer.name.clone()];
    output.table(&titled("Issuers", &columns, issuers.iter().map(row)))?;
    if !issuers.are_closed() {
        output.line("No key that may deploy is listed, so that everybody may, but for what the node's configuration says")?;
    }
    Ok(())
}

fn rm(args: &RmArgs, root: &Path, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let mut issuers = Issuers::read(root)?;
    let was_closed = issuers.are_closed();
    for text in &args.keys {
        let key = keys::named_issuer(Some(text), env)?.unwrap_or_default();
        if !issuers.remove(&key) {
            return Err(Usage(format!("{key} is not on the list; next: see it with `nex issuer ls`")).into());
        }
    }
    if was_closed && !issuers.are_closed() && !args.force {
        let why = "that is the last key that may deploy, and without one everybody may; next: add another first, or say --force";
        return Err(Usage(why.to_owned()).into());
    }
    issuers.write(root)?;
    if output.is_json() {
        return output.document(&json!({ "removed": args.keys }));
    }
    args.keys.iter().try_for_each(|key| output.line(format_args!("Removed {key}")))
}

fn rights(issuer: &Issuer) -> &'static str {
    match (issuer.deploys, issuer.operates) {
        (true, true) => "may deploy, and stop anything",
        (true, false) => "may deploy",
        (false, true) => "may stop anything",
        (false, false) => "may nothing",
    }
}

fn as_json(key: &str, issuer: &Issuer) -> Value {
    json!({ "key": key, "name": issuer.name, "deploys": issuer.deploys, "operates": issuer.operates })
}
