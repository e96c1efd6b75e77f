//! `nex secret`: values that workloads use by name, sealed so that only nodes that run such a workload can open them.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use jiff::Timestamp;
use nex_client::discover::Running;
use nex_client::secret::{NewSecret, StoredSecret};
use nex_protocol::id::SecretName;
use serde_json::{Value, json};

use super::ps::ago;
use crate::args::ConnectionArgs;
use crate::check::Usage;
use crate::complete;
use crate::env::Env;
use crate::output::Output;
use crate::session;
use crate::table::{Column, Grid, titled};
use crate::{environment, keys, prompt};

/// `nex secret`
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Set a secret to what is typed, piped in, or in a file; workloads get the new value when they are started the next time
    Set(SetArgs),
    /// List our secrets, without their values
    Ls(LsArgs),
    /// Remove secrets
    Rm(RmArgs),
}

/// `nex secret set`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex secret set db                             asks for the value
  printf %s \"$PASSWORD\" | nex secret set db
  nex secret set bus --file service.creds
  nex devrun ./service PASSWORD=secret:db       the service gets it; nobody else does
  nex apply                                     replaces what uses a secret that was set since")]
pub(crate) struct SetArgs {
    /// Its name
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::secrets))]
    name: SecretName,
    /// File that holds the value [default: standard input]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Seed file of the issuer whose secret it is [default: ~/.nex/issuer.nk]
    #[arg(long, value_name = "FILE")]
    issuer: Option<PathBuf>,
    /// Let no node open the new value until something that uses it is deployed there again
    #[arg(long)]
    forget_nodes: bool,
    /// On how many servers the bucket is kept, if it has to be made
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,
}

/// `nex secret ls`
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Those of all issuers
    #[arg(long, short)]
    all: bool,
    /// Seed file of the issuer whose secrets they are [default: ~/.nex/issuer.nk]
    #[arg(long, value_name = "FILE")]
    issuer: Option<PathBuf>,
}

/// `nex secret rm`
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Their names
    #[arg(value_name = "NAME", required = true, add = ArgValueCompleter::new(complete::secrets))]
    names: Vec<SecretName>,
    /// Also if a workload uses it, which cannot be started again then
    #[arg(long)]
    force: bool,
    /// Seed file of the issuer whose secrets they are [default: ~/.nex/issuer.nk]
    #[arg(long, value_name = "FILE")]
    issuer: Option<PathBuf>,
}

/// Runs it.
pub(crate) async fn run(
    command: &SecretCommand,
    connection: &ConnectionArgs,
    env: &Env,
    output: &mut Output,
) -> anyhow::Result<()> {
    match command {
        SecretCommand::Set(args) => set(args, connection, env, output).await,
        SecretCommand::Ls(args) => ls(args, connection, env, output).await,
        SecretCommand::Rm(args) => rm(args, connection, env, output).await,
    }
}

/// The value, from where it is neither in a history nor in a list of processes.
fn value(args: &SetArgs) -> anyhow::Result<String> {
    let value = match &args.file {
        Some(file) => environment::of_value_file(file)?,
        None if std::io::stdin().is_terminal() => prompt::secret(&format!("Value of '{}'", args.name))?,
        None => environment::bounded("standard input", std::io::stdin().lock())?,
    };
    if value.is_empty() {
        return Err(Usage("the value is empty; next: type it, pipe it in, or give a file with --file".to_owned()).into());
    }
    Ok(value)
}

async fn set(args: &SetArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let value = value(args)?;
    let issuer = keys::issuer(args.issuer.as_deref(), env, output)?;
    let session = session::open(connection, env).await?;
    let new =
        NewSecret { replicas: usize::from(args.replicas), forget_nodes: args.forget_nodes, ..NewSecret::new(&args.name, &value) };
    let domain = session.jetstream_domain.as_deref();
    let nodes = Box::pin(session.client.set_secret(new, &issuer, domain)).await?;
    let running = session.client.workloads(None, session.discovery_timeout).await?;
    let users = users(&running, &args.name, &issuer.public_key());
    if output.is_json() {
        let ids: Vec<_> = users.iter().map(|running| &running.workload.id).collect();
        return output.document(&json!({ "name": args.name, "issuer": issuer.public_key(), "nodes": nodes, "used_by": ids }));
    }
    output.line(format_args!("✅ Secret '{}' is set; nodes that can open it: {nodes}", args.name))?;
    if users.is_empty() {
        return output.line(format_args!("Use it: nex{} devrun FILE VARIABLE=secret:{}", session.repeated, args.name));
    }
    let names: std::collections::BTreeSet<_> = users.iter().map(|running| running.workload.name.as_str()).collect();
    let names: Vec<_> = names.into_iter().collect();
    output.line(format_args!(
        "Used by {}: functions have the new value at once; services when they are started again, with --on-secret-change restart at once",
        names.join(", ")
    ))
}

async fn ls(args: &LsArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let own = keys::known_issuer(args.issuer.as_deref(), env)?.map(|key| key.public_key());
    let session = session::open(connection, env).await?;
    let mut found = Box::pin(session.client.secrets(session.jetstream_domain.as_deref())).await?;
    found.retain(|secret| args.all || own.as_ref() == Some(&secret.issuer));
    let running = session.client.workloads(None, session.discovery_timeout).await?;
    if output.is_json() {
        return output.document(&found.iter().map(|secret| as_json(secret, &running)).collect::<Vec<_>>());
    }
    if found.is_empty() {
        let whose = if args.all { "No secrets" } else { "No secrets of ours" };
        return output.line(format_args!("{whose} in namespace {}", session.client.namespace()));
    }
    output.table(&table(&found, &running, Timestamp::now()))
}

async fn rm(args: &RmArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let issuer = keys::issuer(args.issuer.as_deref(), env, output)?.public_key();
    let session = session::open(connection, env).await?;
    let running = session.client.workloads(None, session.discovery_timeout).await?;
    for name in &args.names {
        if let Some(user) = users(&running, name, &issuer).first().filter(|_| !args.force) {
            let (id, workload) = (&user.workload.id, &user.workload.name);
            let why = format!(
                "'{name}' is used by '{workload}' ({id}), which could not be started again; next: stop that first, or say --force"
            );
            return Err(Usage(why).into());
        }
    }
    for name in &args.names {
        session.client.remove_secret(name, &issuer, session.jetstream_domain.as_deref()).await?;
        output.note(format_args!("Removed {name}"));
    }
    if output.is_json() { output.document(&json!({ "removed": args.names })) } else { Ok(()) }
}

fn users<'a>(running: &'a [Running], name: &SecretName, issuer: &str) -> Vec<&'a Running> {
    let uses = |running: &&Running| {
        running.workload.issuer == issuer && running.workload.secrets.iter().any(|used| used == name.as_str())
    };
    running.iter().filter(uses).collect()
}

fn as_json(secret: &StoredSecret, running: &[Running]) -> Value {
    let (version, nodes, error) = match &secret.secret {
        Ok(it) => (Some(it.version()), it.nodes().map(|(node, _)| node.to_string()).collect(), None),
        Err(error) => (None, Vec::new(), Some(error.to_string())),
    };
    json!({
        "name": secret.name, "issuer": secret.issuer, "version": version, "changed": secret.changed_at, "nodes": nodes,
        "used_by": users(running, &secret.name, &secret.issuer).len(), "error": error,
    })
}

fn table(secrets: &[StoredSecret], running: &[Running], now: Timestamp) -> Grid {
    let columns = [
        Column::left("Name"),
        Column::right("Set"),
        Column::right("Used by"),
        Column::right("Nodes"),
        Column::left("Issuer").optional(),
        Column::left("State"),
    ];
    let row = |secret: &StoredSecret| {
        let (set_at, nodes, state) = match &secret.secret {
            Ok(it) => (i64::try_from(it.version() / 1_000).unwrap_or_default(), it.nodes().count(), "sealed".to_owned()),
            Err(error) => (secret.changed_at, 0, error.to_string()),
        };
        vec![
            secret.name.to_string(),
            format!("{} ago", ago(set_at, now)),
            users(running, &secret.name, &secret.issuer).len().to_string(),
            nodes.to_string(),
            secret.issuer.clone(),
            state,
        ]
    };
    titled("Secrets", &columns, secrets.iter().map(row))
}
