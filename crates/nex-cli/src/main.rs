//! `nex`: the command line. Runs one command and reports its outcome.
//!
//! | room | what is in it |
//! |---|---|
//! | [`cli`], [`refused`], [`args`], [`mod@env`] | the command line and the environment; nothing else reads either |
//! | [`dispatch`], [`cmd`] | the commands, one file each, and the choice among them |
//! | [`session`], [`keys`] | the connection, and the keys of the user |
//! | [`manifest`], [`mod@plan`], [`placement`] | the file that says what should run, and what to do so that it does |
//! | [`new`] | templates of functions and services |
//! | [`sniff`], [`check`], [`environment`], [`prompt`] | detection and validation of input |
//! | [`local`], [`registry`], [`saves`] | files and images to run, from here and from registries; when a file was saved |
//! | [`complete`] | what a shell completes |
//! | [`output`], [`table`], [`style`], [`progress`] | output for people and programs |
//! | [`exit`], [`logging`], [`log_feed`] | exit codes and logging |

mod args;
mod check;
mod cli;
mod cmd;
mod complete;
mod dispatch;
mod env;
mod environment;
mod exit;
mod kept;
mod keys;
mod local;
mod log_feed;
mod logging;
mod manifest;
mod new;
mod node_ref;
mod output;
mod placement;
mod plan;
mod progress;
mod prompt;
mod refused;
mod registry;
mod remote;
mod saves;
mod session;
mod sniff;
mod story;
mod style;
mod table;

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::CompleteEnv;
use cli::Cli;
use cmd::completion::COMPLETE;
use env::Env;
use exit::Exit;
use output::Output;

fn main() -> ExitCode {
    // A shell that asks what could be written next is answered, and that is all.
    CompleteEnv::with_factory(Cli::command).var(COMPLETE).complete();
    let cli = Cli::read();
    let env = Env::read();
    let mut output = Output::new(cli.json, env.no_color).wide(cli.wide);
    let exit = match run(&cli, &env, &mut output) {
        Ok(()) => Exit::Done,
        Err(error) => {
            let exit = Exit::of(&error);
            if exit != Exit::Done {
                output.failure(&error, exit.code(), used(&cli, exit));
            }
            exit
        }
    };
    ExitCode::from(exit.code())
}

/// What the command was connected with, where that may be why it failed.
fn used(cli: &Cli, exit: Exit) -> Option<&args::Used> {
    let brings_its_own = matches!(cli.command, cli::Command::Up(_));
    let has_worked = matches!(exit, Exit::Job(_) | Exit::Differs | Exit::Interrupted);
    cli.connection.used().filter(|_| !brings_its_own && !has_worked)
}

fn run(cli: &Cli, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let feed = logging::start(&cli.logging, cli.command.default_level())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Boxed, because the commands' futures are large.
    runtime.block_on(Box::pin(dispatch::run(cli, env, output, feed)))
}
