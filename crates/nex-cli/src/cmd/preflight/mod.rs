//! `nex node preflight`: checks what a node needs and how well it can confine workloads.
//!
//! | room | what is in it |
//! |---|---|
//! | [`node`] | checks of every node and of jailed processes |
//! | [`nats`] | the user's NATS, and what it permits |
//! | [`microvm`] | checks of microVMs |
//! | [`repair`] | installs what is missing |
//! | [`args`], [`check`], [`starter`] | arguments, results, and the starter configuration |

mod args;
mod check;
mod microvm;
mod nats;
mod node;
mod repair;
mod starter;

use std::path::Path;

pub(crate) use args::PreflightArgs;
pub(crate) use node::check_agent;

use crate::args::ConnectionArgs;
use crate::env::Env;
use crate::output::Output;
use check::Check;
use nex_node::{NodeConfig, rehearsal};
use repair::RootParts;

/// Checks, installs if requested and prints the list. Fails if something required is missing.
pub(crate) async fn run(args: &PreflightArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
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
    checks.extend(node::checks(args, &config, connection, env).await);
    let agent = args.node.agent(&config, env).ok();
    if let Some(wanted) = microvm::Wanted::of(&args.node, &config, agent.as_deref(), env)? {
        if args.verbose {
            output.note(format_args!("resources: {}", wanted.paths.layout.dir().display()));
        }
        let base = args.install.registry.base(args.install.base.as_deref(), env).await?;
        repair::repair(&wanted, args, &RootParts { agent: agent.as_deref(), base }, output).await?;
        checks.extend(wanted.checks(args.install.verify));
    }
    checks.extend(rehearse(args, &config, connection, env, &checks).await);
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

/// Makes the sandboxes that the node would make, where nothing is known to be missing that they need.
async fn rehearse(
    args: &PreflightArgs,
    config: &NodeConfig,
    connection: &ConnectionArgs,
    env: &Env,
    checks: &[Check],
) -> Option<Check> {
    let is_hopeless = checks.iter().any(|check| check.fails() && !nats::is_of_nats(check));
    let settings = connection.settings(env).ok().filter(|_| !is_hopeless)?;
    let options = node::options(&args.node, config, settings, env).ok()?;
    let found = Box::pin(rehearsal::sandboxes(&options)).await.map_err(Into::into);
    Some(Check::new("sandboxes, as a node makes them", true, found, "see the reason, and what is missing above"))
}
