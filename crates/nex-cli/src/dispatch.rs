//! Runs the command of the command line.

use std::time::Duration;

use anyhow::Context as _;
use clap::CommandFactory as _;
use nex_protocol::agent::PROTOCOL;
use serde_json::json;

use crate::cli::{Cli, Command};
use crate::cmd::node::NodeCommand;
use crate::cmd::{
    apply, artifact, call, completion, dead, describe, devrun, events, export, help, image, issuer, lameduck, logs, new, node,
    node_stop, node_up, node_upgrade, preflight, ps, replay, rollback, rootfs, run as run_artifact, secret, stop, top, up,
    whoami,
};
use crate::env::Env;
use crate::exit::{Denied, Interrupted};
use crate::log_feed::LogFeed;
use crate::output::Output;
use crate::session;

/// How long is waited for more denials.
const TOGETHER: Duration = Duration::from_millis(50);

/// Runs the command; ends at once when the server does not permit it, for then no answer comes.
pub(crate) async fn run(cli: &Cli, env: &Env, output: &mut Output, feed: Option<LogFeed>) -> anyhow::Result<()> {
    // What its user may not ask is part of its answer.
    let is_curious = matches!(cli.command, Command::Whoami);
    let denials = &cli.connection.denials;
    let mut work = Box::pin(run_command(cli, env, output, feed));
    tokio::select! {
        biased;
        _first = denials.first(), if !is_curious => {}
        done = &mut work => return done,
    }
    // The server tells of each apart. Do nothing more meanwhile, but keep the connection.
    tokio::time::sleep(TOGETHER).await;
    Err(Denied(denials.so_far()).into())
}

async fn run_command(cli: &Cli, env: &Env, output: &mut Output, feed: Option<LogFeed>) -> anyhow::Result<()> {
    let connection = &cli.connection;
    // Commands that need no connection, or validate their arguments before they connect.
    match &cli.command {
        Command::Completion(args) => return completion::run(args, output),
        Command::Help(args) => return help::run(args, Cli::command(), output),
        Command::New(args) => return new::run(args, output),
        Command::Version => return version(output),
        Command::Whoami => return whoami::run(connection, env, output).await,
        Command::Issuer(command) => return issuer::run(command, env, output),
        Command::Rootfs(args) => return rootfs::run(args, env, output).await,
        Command::Up(args) => return Box::pin(up::run(args, connection, env, output, feed)).await,
        Command::Node(NodeCommand::Up(args)) => return Box::pin(node_up::run(args, connection, env, output, feed)).await,
        Command::Node(NodeCommand::Stop(args)) => return node_stop::run(args, env, output).await,
        Command::Node(NodeCommand::Upgrade(args)) => return node_upgrade::run(args, env, output).await,
        Command::Node(NodeCommand::Preflight(args)) => return preflight::run(args, connection, env, output).await,
        Command::Devrun(args) if args.is_watching() => return devrun::run(args, connection, env, output).await,
        Command::Devrun(args) => return unless_interrupted(Box::pin(devrun::run(args, connection, env, output))).await,
        Command::Apply(args) => return unless_interrupted(Box::pin(apply::run(args, connection, env, output))).await,
        Command::Export(args) => return Box::pin(export::run(args, connection, env, output)).await,
        Command::Rollback(args) => return unless_interrupted(Box::pin(rollback::run(args, connection, env, output))).await,
        Command::Replay(args) => return Box::pin(replay::run(args, connection, env, output)).await,
        Command::Run(args) => return unless_interrupted(Box::pin(run_artifact::run(args, connection, env, output))).await,
        Command::Secret(command) => return Box::pin(secret::run(command, connection, env, output)).await,
        Command::Stop(args) => return stop::run(args, connection, env, output).await,
        Command::Events(_) => events::check(&connection.namespace)?,
        _ => {}
    }
    let session = session::open(connection, env).await?;
    match &cli.command {
        Command::Node(command) => node::run(command, &session, output).await,
        Command::Lameduck(args) => lameduck::run(args, &session, output).await,
        Command::Call(args) => call::run(args, &session, output).await,
        Command::Artifact(command) => artifact::run(command, &session, output).await,
        Command::Image(command) => Box::pin(image::run(command, &session, env, output)).await,
        Command::Describe(args) => describe::run(args, &session, output).await,
        Command::Dead(command) => dead::run(command, &session, output).await,
        Command::Ps(args) => ps::run(args, &session, env, output).await,
        Command::Top(args) => until_interrupted(Box::pin(top::run(args, &session, output))).await,
        Command::Logs(args) => until_interrupted(logs::run(args, &session, output)).await,
        Command::Events(args) => until_interrupted(events::run(args, &session, output)).await,
        Command::Up(_) | Command::Devrun(_) | Command::Apply(_) | Command::Run(_) | Command::Stop(_) => Ok(()),
        Command::Completion(_) | Command::Rootfs(_) | Command::Secret(_) | Command::Version => Ok(()),
        Command::Export(_)
        | Command::Replay(_)
        | Command::Rollback(_)
        | Command::Help(_)
        | Command::Issuer(_)
        | Command::New(_)
        | Command::Whoami => Ok(()),
    }
}

fn version(output: &mut Output) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if output.is_json() {
        output.document(&json!({ "version": version, "agent_protocol": PROTOCOL }))
    } else {
        output.line(format_args!("nex v{version}"))
    }
}

/// Runs a deploy; one that is interrupted says what becomes of it.
async fn unless_interrupted(deploy: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        done = deploy => done,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("cannot handle Ctrl-C")?;
            Err(Interrupted.into())
        }
    }
}

/// Runs a stream until Ctrl-C, which is its regular end.
async fn until_interrupted(tail: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        ended = tail => ended,
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot handle Ctrl-C"),
    }
}
