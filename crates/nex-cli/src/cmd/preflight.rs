//! `nex node preflight`: is everything here that a node needs, and how well can it confine what it runs?

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use nex_bus::connect::{Persistence, connect};
use nex_node::sandbox::UID_BASE;
use nex_process::{ChildSpec, Deadline, Output as ChildOutput};
use serde::Serialize;

use crate::args::{Cli, NodeArgs};
use crate::env::Env;
use crate::output::Output;

/// Oldest `nats-server` that will do.
const NATS_SERVER: (u64, u64) = (2, 12);
/// Longest wait for anything asked.
const WITHIN: Duration = Duration::from_secs(10);

/// Arguments of `node preflight`.
#[derive(Debug, Args)]
pub(crate) struct PreflightArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Write a starter configuration if there is none, then check
    #[arg(long, value_name = "KIND")]
    pub(crate) init: Option<Init>,
    /// Only check (which is what preflight does anyway)
    #[arg(long)]
    pub(crate) check: bool,
    /// Show the directories searched
    #[arg(long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) install: InstallArgs,
}

/// Flags of 0.2.7, whose preflight installed what was missing; they have no effect, and we say so.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    #[arg(long, hide = true)]
    pub(crate) force: bool,
    #[arg(long, hide = true)]
    pub(crate) verify: bool,
    #[arg(long = "install_version", hide = true)]
    pub(crate) install_version: Option<String>,
    #[arg(long = "cni_ns", hide = true)]
    pub(crate) cni_ns: Vec<String>,
}

/// Kinds of starter configuration.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Init {
    /// Workloads in microVMs (not in this build: they run in jailed processes, and the node says so)
    Sandbox,
    /// Workloads in jailed processes
    Nosandbox,
}

/// One thing checked.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    satisfied: bool,
    /// Without it no node starts; the rest makes it weaker, and is said in its tags.
    required: bool,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Check {
    fn new(what: &'static str, required: bool, found: anyhow::Result<String>, next: &str) -> Self {
        match found {
            Ok(found) => Self { what, satisfied: true, required, found, next: None },
            Err(error) => Self { what, satisfied: false, required, found: said(&error), next: Some(next.to_owned()) },
        }
    }
}

/// What a failure says, without the advice in it (the list has its own) and without saying anything twice.
fn said(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for part in error.chain().map(ToString::to_string) {
        let what = part.split_once("; next: ").map_or(part.as_str(), |(what, _advice)| what);
        if !text.contains(what) {
            text = if text.is_empty() { what.to_owned() } else { format!("{text}: {what}") };
        }
    }
    text
}

/// Checks, prints the list, fails when something required is missing.
pub(crate) async fn run(args: &PreflightArgs, cli: &Cli, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    if let Some(kind) = args.init {
        init(kind, args.node.config.as_deref().unwrap_or(Path::new("config.json")), output)?;
    }
    let InstallArgs { force, verify, install_version, cni_ns } = &args.install;
    if *force || *verify || install_version.is_some() || !cni_ns.is_empty() {
        output.note("--force, --verify, --install_version and --cni_ns have no effect: preflight installs nothing");
    }
    if args.verbose {
        output.note(format_args!(
            "searched: {}",
            env.path.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":")
        ));
    }
    let checks = checks(args, cli, env).await;
    if output.is_json() {
        output.document(&checks)?;
    } else {
        for check in &checks {
            match (check.satisfied, check.required) {
                (true, _) => output.line(format_args!("✅ Dependency Satisfied - {} [{}]", check.found, check.what))?,
                (false, true) => output.line(format_args!("⛔ Dependency Missing - {}: {}", check.what, check.found))?,
                (false, false) => output.line(format_args!("⚠️  Weaker without - {}: {}", check.what, check.found))?,
            }
            if let Some(next) = &check.next {
                output.line(format_args!("   next: {next}"))?;
            }
        }
    }
    match checks.iter().filter(|check| check.required && !check.satisfied).count() {
        0 => Ok(()),
        missing => {
            anyhow::bail!("{missing} of {} checks failed; next: do what the list says, then run preflight again", checks.len())
        }
    }
}

async fn checks(args: &PreflightArgs, cli: &Cli, env: &Env) -> Vec<Check> {
    let mut checks = Vec::new();
    let config = match args.node.load() {
        Ok(loaded) => {
            let file = loaded.file.map_or_else(|| "built in".to_owned(), |file| file.display().to_string());
            checks.push(Check::new("node configuration", true, Ok(file), ""));
            for warning in &loaded.config.warnings {
                let found = Err(anyhow::anyhow!("{warning}"));
                checks.push(Check::new(
                    "configuration",
                    false,
                    found,
                    "remove the field, or leave it: the node starts without it",
                ));
            }
            loaded.config
        }
        Err(error) => {
            checks.push(Check::new(
                "node configuration",
                true,
                Err(error),
                "correct the file; the names of all fields are in the documentation",
            ));
            nex_node::NodeConfig::default()
        }
    };
    let nats = match args.node.nats_server(env) {
        Ok(path) => nats_version(&path).await,
        Err(error) => Err(error),
    };
    checks.push(Check::new(
        "nats-server, for the internal bus",
        true,
        nats,
        "install NATS server 2.12 or newer, or name it with --nats-server",
    ));
    checks.push(Check::new("state directory", true, writable(&args.node, &config, env), "name another with --state-dir"));
    checks.push(Check::new(
        "NATS with JetStream",
        false,
        jetstream(cli, env).await,
        "start 'nats-server -js', or let 'nex up' do it",
    ));
    match args.node.agent(&config, env) {
        Err(error) => checks.push(Check::new("nex-agent", true, Err(error), "put nex-agent beside nex, or name it with --agent")),
        Ok(agent) => checks.extend(agent_checks(&agent, &config.require).await),
    }
    checks
}

async fn agent_checks(agent: &Path, required: &[nex_process::confinement::Part]) -> Vec<Check> {
    let version = printed(agent, &["--version"]).await.and_then(|said| {
        let own = format!("nex-agent {}", env!("CARGO_PKG_VERSION"));
        if said.trim() == own {
            Ok(agent.display().to_string())
        } else {
            anyhow::bail!("{} is '{}', not '{own}'", agent.display(), said.trim())
        }
    });
    let mut checks = vec![Check::new("nex-agent of this version", true, version, "install nex and nex-agent of one version")];
    match nex_sandbox_probe(agent).await {
        Err(error) => {
            checks.push(Check::new("process sandbox", true, Err(error), "see the reason; run as root, or allow user namespaces"));
        }
        Ok(confinement) => {
            checks.push(Check::new("process sandbox", true, Ok(confinement.to_string()), ""));
            for (part, reason) in confinement.missing() {
                let found = Err(anyhow::anyhow!("{part}: {reason}"));
                checks.push(Check::new(
                    "confinement",
                    required.contains(&part),
                    found,
                    "run the node as root, or on a kernel that has it",
                ));
            }
        }
    }
    checks
}

async fn nex_sandbox_probe(agent: &Path) -> anyhow::Result<nex_process::Confinement> {
    Ok(nex_node::sandbox::probe(agent, UID_BASE, Deadline::after(WITHIN)).await?)
}

/// What a program says on standard output.
async fn printed(program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let text = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&text);
    let lines =
        ChildOutput::Lines(Arc::new(move |line: &str| sink.lock().unwrap_or_else(PoisonError::into_inner).push_str(line)));
    let child = ChildSpec::new(program).args(arguments.iter().copied()).stdout(lines).spawn()?;
    let exit = Deadline::after(WITHIN).bound(child.exited()).await.context("it does not end")?;
    anyhow::ensure!(exit.is_success(), "{} {} {exit}", program.display(), arguments.join(" "));
    let text = text.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(text)
}

async fn nats_version(path: &Path) -> anyhow::Result<String> {
    let said = printed(path, &["--version"]).await?;
    let version = said.rsplit('v').next().unwrap_or_default().trim();
    let mut parts = version.split('.').map(|part| part.parse::<u64>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= NATS_SERVER => Ok(format!("{} {version}", path.display())),
        _ => anyhow::bail!("{} is version {version}, older than {}.{}", path.display(), NATS_SERVER.0, NATS_SERVER.1),
    }
}

fn writable(args: &NodeArgs, config: &nex_node::NodeConfig, env: &Env) -> anyhow::Result<String> {
    let root: PathBuf = args.state_root(config, env)?;
    std::fs::create_dir_all(&root).with_context(|| format!("{} cannot be made", root.display()))?;
    let probe = root.join(".preflight");
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .with_context(|| format!("{} cannot be written to", root.display()))?;
    Ok(root.display().to_string())
}

async fn jetstream(cli: &Cli, env: &Env) -> anyhow::Result<String> {
    let settings = cli.connection.settings(env)?;
    let client = connect(&settings, Persistence::Once).await?;
    let context = async_nats::jetstream::new(client);
    context.query_account().await.context("JetStream does not answer; artifacts cannot be fetched without it")?;
    Ok(settings.shown_servers())
}

fn init(kind: Init, path: &Path, output: &Output) -> anyhow::Result<()> {
    if path.exists() {
        output.note(format_args!("{} exists and is kept", path.display()));
        return Ok(());
    }
    let mut starter = serde_json::json!({
        "machine_pool_size": 1,
        "machine_template": {"memsize_mib": 256},
        "tags": {"simple": "true"},
        "workload_types": ["native", "v8", "wasm"],
    });
    if let (Init::Nosandbox, Some(members)) = (kind, starter.as_object_mut()) {
        members.insert("no_sandbox".into(), true.into());
    }
    let text = serde_json::to_string_pretty(&starter)?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    output.note(format_args!("wrote {}", path.display()));
    Ok(())
}
