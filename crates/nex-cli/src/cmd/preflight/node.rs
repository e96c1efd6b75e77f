//! Checks of every node: configuration, state directory, agent, and the confinement of jailed processes.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use nex_bus::settings::ConnectionSettings;
use nex_node::bus::program_version;
use nex_node::config::SandboxChoice;
use nex_node::sandbox::UID_BASE;
use nex_node::service_users::ServiceUsers;
use nex_node::{NodeConfig, NodeOptions, rehearsal};
use nex_process::{ChildSpec, Deadline, Output as ChildOutput};

use super::args::PreflightArgs;
use super::check::Check;
use super::nats;
use crate::args::{ConnectionArgs, NodeArgs};
use crate::env::Env;

/// What to do about an agent of another version.
const SAME_VERSION: &str = "install nex and nex-agent of one version";
/// Timeout of each check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// What makes users for services.
pub(super) const SERVICE_USERS: &str = "users of NATS for services";

/// What an error says to do.
pub(super) fn advice(error: &impl std::fmt::Display) -> String {
    error.to_string().split_once("; next: ").map_or_else(|| "see the reason".to_owned(), |(_, advice)| advice.to_owned())
}

/// Checks the configuration and returns it; the built-in one if it is invalid.
pub(super) fn configuration(args: &NodeArgs) -> (Vec<Check>, NodeConfig) {
    let loaded = match args.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            let next = advice(&error);
            return (vec![Check::new("node configuration", true, Err(error), &next)], NodeConfig::default());
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
    if let Err(wrong) = rehearsal::host_services(&loaded.config) {
        checks.push(Check::new("host services", true, Err(wrong.into()), "correct the file"));
    }
    checks.push(Check::new("host services act with", false, Ok(rights_of_host_services(&loaded.config)), ""));
    if let Some(Err(wrong)) = loaded.config.service_credentials.as_ref().map(ServiceUsers::load) {
        let next = advice(&wrong);
        checks.push(Check::new(SERVICE_USERS, true, Err(wrong.into()), &next));
    }
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

/// What a node would be started with, as far as it is there.
pub(super) fn options(
    args: &NodeArgs,
    config: &NodeConfig,
    connection: ConnectionSettings,
    env: &Env,
) -> anyhow::Result<NodeOptions> {
    Ok(NodeOptions {
        connection,
        state_dir: args.state_root(config, env)?.join("node"),
        agent_binary: args.agent(config, env)?,
        nats_server: args.nats_server(env)?,
        resource_dir: args.resources(config, env)?,
        nexus: args.nexus.clone(),
        config: config.clone(),
    })
}

/// Runs the checks.
pub(super) async fn checks(args: &PreflightArgs, config: &NodeConfig, connection: &ConnectionArgs, env: &Env) -> Vec<Check> {
    let nats = match args.node.nats_server(env) {
        Ok(path) => program_version(&path).await.map(|version| format!("{} {version}", path.display())).map_err(Into::into),
        Err(error) => Err(error),
    };
    let install = "install NATS server 2.12 or newer, or name it with --nats-server";
    let mut checks = vec![Check::new("nats-server, for the internal bus", true, nats, install)];
    let state = args.node.state_root(config, env).and_then(|root| usable(&root));
    checks.push(Check::new("state directory", true, state, "name another with --state-dir, or stop the other node"));
    checks.extend(nats::checks(&args.node, config, connection, env).await);
    match args.node.agent(config, env) {
        Err(error) => checks.push(Check::new("nex-agent", true, Err(error), "put nex-agent beside nex, or name it with --agent")),
        Ok(agent) => {
            checks.push(Check::new("nex-agent of this version", true, check_agent(&agent).await, SAME_VERSION));
            // With microVMs no workload runs in a jailed process of this host.
            if !matches!(config.sandbox, SandboxChoice::Firecracker | SandboxChoice::Qemu) {
                let required = nex_node::sandbox::required(config);
                checks.extend(confinement(&agent, &required).await);
            }
        }
    }
    checks
}

/// Checks that an agent is of this version.
///
/// # Errors
/// When it is another, or none.
pub(crate) async fn check_agent(agent: &Path) -> anyhow::Result<String> {
    let said = output_of(agent, &["--version"]).await?;
    let own = format!("nex-agent {}", env!("CARGO_PKG_VERSION"));
    let is_own = said.trim() == own;
    anyhow::ensure!(is_own, "{} is '{}', not '{own}'; next: {SAME_VERSION}", agent.display(), said.trim());
    Ok(agent.display().to_string())
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

/// Whether a node can keep its state there, and none does already.
fn usable(root: &Path) -> anyhow::Result<String> {
    std::fs::create_dir_all(root).with_context(|| format!("{} cannot be made", root.display()))?;
    let probe = root.join(".preflight");
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .with_context(|| format!("{} cannot be written to", root.display()))?;
    rehearsal::is_free(&root.join("node"))?;
    Ok(root.display().to_string())
}
