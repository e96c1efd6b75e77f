//! Checks of every node: configuration, NATS, state directory, agent, and the confinement of jailed processes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use nex_bus::connect::connect_with;
use nex_bus::denials::Denials;
use nex_node::NodeConfig;
use nex_node::config::SandboxChoice;
use nex_node::sandbox::UID_BASE;
use nex_process::{ChildSpec, Deadline, Output as ChildOutput};

use super::args::PreflightArgs;
use super::check::Check;
use super::microvm::is_configured;
use crate::args::{ConnectionArgs, NodeArgs};
use crate::env::Env;

/// Oldest supported `nats-server`.
const MIN_NATS_SERVER: (u64, u64) = (2, 12);
/// Timeout of each check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks the configuration and returns it; the built-in one if it is invalid.
pub(super) fn configuration(args: &NodeArgs) -> (Vec<Check>, NodeConfig) {
    let loaded = match args.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            let next = "correct the file; the names of all fields are in the documentation";
            return (vec![Check::new("node configuration", true, Err(error), next)], NodeConfig::default());
        }
    };
    let file = loaded.file.map_or_else(|| "built in".to_owned(), |file| file.display().to_string());
    let mut checks = vec![Check::new("node configuration", true, Ok(file), "")];
    let demands = loaded
        .config
        .demands
        .names()
        .map_or_else(|| "nothing that clients of 0.2.7 cannot offer".to_owned(), |it| it.replace(',', ", "));
    checks.push(Check::new("demanded of deploys and stops", false, Ok(demands), ""));
    checks.push(Check::new("host services act with", false, Ok(rights_of_host_services(&loaded.config)), ""));
    let next = "remove the field, or leave it: the node starts without it";
    let warnings = loaded.config.warnings.iter().map(|warning| anyhow::anyhow!("{warning}"));
    checks.extend(warnings.map(|warning| Check::new("configuration", false, Err(warning), next)));
    (checks, loaded.config)
}

/// Whose rights functions have on NATS through the host services.
fn rights_of_host_services(config: &NodeConfig) -> String {
    let services = &config.host_services;
    let others = match services.nats_url.as_ref().or(services.nats_user_jwt.as_ref()) {
        Some(_) => "the user of host_services",
        None => "the node's own rights (host_services.namespaces narrows them)",
    };
    if services.namespaces.is_empty() {
        return format!("{others}, in every namespace");
    }
    let named: Vec<&str> = services.namespaces.keys().map(String::as_str).collect();
    format!("a user of their own in {}; elsewhere {others}", named.join(", "))
}

/// Runs the checks.
pub(super) async fn checks(args: &PreflightArgs, config: &NodeConfig, connection: &ConnectionArgs, env: &Env) -> Vec<Check> {
    let nats = match args.node.nats_server(env) {
        Ok(path) => nats_version(&path).await,
        Err(error) => Err(error),
    };
    let install = "install NATS server 2.12 or newer, or name it with --nats-server";
    let mut checks = vec![Check::new("nats-server, for the internal bus", true, nats, install)];
    checks.push(Check::new("state directory", true, writable(&args.node, config, env), "name another with --state-dir"));
    let start = "start 'nats-server -js', or let 'nex up' do it";
    checks.push(Check::new("NATS with JetStream", false, jetstream(connection, env).await, start));
    match args.node.agent(config, env) {
        Err(error) => checks.push(Check::new("nex-agent", true, Err(error), "put nex-agent beside nex, or name it with --agent")),
        Ok(agent) => {
            checks.push(agent_version(&agent).await);
            // With microVMs no workload runs in a jailed process of this host.
            let uses_microvms = matches!(config.sandbox, SandboxChoice::Firecracker | SandboxChoice::Qemu)
                || config.sandbox == SandboxChoice::Auto && is_configured(&args.node);
            if !uses_microvms {
                let required = nex_node::sandbox::required(config);
                checks.extend(confinement(&agent, &required).await);
            }
        }
    }
    checks
}

async fn agent_version(agent: &Path) -> Check {
    let version = output_of(agent, &["--version"]).await.and_then(|said| {
        let own = format!("nex-agent {}", env!("CARGO_PKG_VERSION"));
        if said.trim() == own {
            Ok(agent.display().to_string())
        } else {
            anyhow::bail!("{} is '{}', not '{own}'", agent.display(), said.trim())
        }
    });
    Check::new("nex-agent of this version", true, version, "install nex and nex-agent of one version")
}

async fn confinement(agent: &Path, required: &[nex_process::confinement::Part]) -> Vec<Check> {
    let confinement = match probe_confinement(agent).await {
        Ok(confinement) => confinement,
        Err(error) => {
            return vec![Check::new(
                "process sandbox",
                true,
                Err(error),
                "see the reason; run as root, or allow user namespaces",
            )];
        }
    };
    let mut checks = vec![Check::new("process sandbox", true, Ok(confinement.to_string()), "")];
    for (part, reason) in confinement.missing() {
        let found = Err(anyhow::anyhow!("{part}: {reason}"));
        let next = format!("run the node as root, or on a kernel that has it; or do without it: --waive {}", part.name());
        checks.push(Check::new("confinement", required.contains(&part), found, &next));
    }
    checks
}

async fn probe_confinement(agent: &Path) -> anyhow::Result<nex_process::Confinement> {
    Ok(nex_node::sandbox::probe(agent, UID_BASE, Deadline::after(CHECK_TIMEOUT)).await?)
}

/// Runs a program and returns its standard output.
async fn output_of(program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let text = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&text);
    let lines =
        ChildOutput::Lines(Arc::new(move |line: &str| sink.lock().unwrap_or_else(PoisonError::into_inner).push_str(line)));
    let child = ChildSpec::new(program).args(arguments.iter().copied()).stdout(lines).spawn()?;
    let exit = Deadline::after(CHECK_TIMEOUT).bound(child.exited()).await.context("it does not end")?;
    anyhow::ensure!(exit.is_success(), "{} {} {exit}", program.display(), arguments.join(" "));
    let text = text.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(text)
}

async fn nats_version(path: &Path) -> anyhow::Result<String> {
    let said = output_of(path, &["--version"]).await?;
    let version = said.rsplit('v').next().unwrap_or_default().trim();
    let mut parts = version.split('.').map(|part| part.parse::<u64>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= MIN_NATS_SERVER => Ok(format!("{} {version}", path.display())),
        _ => anyhow::bail!("{} is version {version}, older than {}.{}", path.display(), MIN_NATS_SERVER.0, MIN_NATS_SERVER.1),
    }
}

fn writable(args: &NodeArgs, config: &NodeConfig, env: &Env) -> anyhow::Result<String> {
    let root: PathBuf = args.state_root(config, env)?;
    std::fs::create_dir_all(&root).with_context(|| format!("{} cannot be made", root.display()))?;
    let probe = root.join(".preflight");
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .with_context(|| format!("{} cannot be written to", root.display()))?;
    Ok(root.display().to_string())
}

async fn jetstream(connection: &ConnectionArgs, env: &Env) -> anyhow::Result<String> {
    let settings = connection.settings(env)?;
    let denials = Denials::default();
    let client = connect_with(&settings, &denials).await?;
    let context = async_nats::jetstream::new(client);
    tokio::select! {
        account = context.query_account() => {
            account.context("JetStream does not answer; artifacts cannot be fetched without it")?;
            Ok(settings.shown_servers())
        }
        // A user with the least permissions may not ask this; the server has been reached.
        denial = denials.first() => Ok(format!("{}, where JetStream cannot be asked for: {denial}", settings.shown_servers())),
    }
}
