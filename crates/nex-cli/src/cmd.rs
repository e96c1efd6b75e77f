//! The commands, one file each.

pub(crate) mod call;
pub(crate) mod completion;
pub(crate) mod devrun;
pub(crate) mod events;
pub(crate) mod lameduck;
pub(crate) mod logs;
pub(crate) mod node;
pub(crate) mod node_info;
pub(crate) mod node_up;
pub(crate) mod preflight;
pub(crate) mod ps;
pub(crate) mod rootfs;
pub(crate) mod run;
pub(crate) mod stop;
pub(crate) mod up;

use anyhow::Context as _;
use node::NodeCommand;

use crate::args::{Cli, Command};
use crate::env::Env;
use crate::log_feed::LogFeed;
use crate::output::Output;
use crate::session;

/// Does what the command line says; ends at once when the server does not permit it, for then no answer comes.
pub(crate) async fn run(cli: &Cli, env: &Env, output: &mut Output, feed: Option<LogFeed>) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        denial = cli.denials.first() => Err(denial.into()),
        done = Box::pin(dispatch(cli, env, output, feed)) => done,
    }
}

async fn dispatch(cli: &Cli, env: &Env, output: &mut Output, feed: Option<LogFeed>) -> anyhow::Result<()> {
    // What needs no connection, and what checks its arguments before it connects.
    match &cli.command {
        Command::Completion(args) => return completion::run(args, output),
        Command::Rootfs(args) => return rootfs::run(args, env, output),
        Command::Up(args) => return Box::pin(up::run(args, cli, env, output, feed)).await,
        Command::Node(NodeCommand::Up(args)) => return Box::pin(node_up::run(args, cli, env, output, feed)).await,
        Command::Node(NodeCommand::Preflight(args)) => return preflight::run(args, cli, env, output).await,
        Command::Devrun(args) => return devrun::run(args, cli, env, output).await,
        Command::Run(args) => return run::run(args, cli, env, output).await,
        Command::Stop(args) => return stop::run(args, cli, env, output).await,
        Command::Events => events::check(&cli.connection.namespace)?,
        _ => {}
    }
    let session = session::open(cli, env).await?;
    match &cli.command {
        Command::Node(command) => node::run(command, &session, output).await,
        Command::Lameduck(args) => lameduck::run(args, &session, output).await,
        Command::Call(args) => call::run(args, &session, output).await,
        Command::Ps(args) => ps::run(args, &session, output).await,
        Command::Logs(args) => until_interrupted(logs::run(args, &session, output)).await,
        Command::Events => until_interrupted(events::run(&session, output)).await,
        Command::Up(_) | Command::Devrun(_) | Command::Run(_) | Command::Stop(_) => Ok(()),
        Command::Completion(_) | Command::Rootfs(_) => Ok(()),
    }
}

/// A tail has no end of its own: to interrupt it is how one is done with it.
async fn until_interrupted(tail: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        ended = tail => ended,
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot handle Ctrl-C"),
    }
}
