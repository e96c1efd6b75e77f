//! `nex`: the command line. Runs one command and reports its outcome.
//!
//! | room | what is in it |
//! |---|---|
//! | [`cli`], [`args`], [`mod@env`] | the command line and the environment; nothing else reads either |
//! | [`dispatch`], [`cmd`] | the commands, one file each, and the choice among them |
//! | [`session`], [`keys`] | the connection, and the keys of the user |
//! | [`manifest`], [`mod@plan`] | the file that says what should run, and what to do so that it does |
//! | [`sniff`], [`check`], [`environment`] | detection and validation of input |
//! | [`output`], [`table`], [`style`], [`progress`] | output for people and programs |
//! | [`exit`], [`logging`], [`log_feed`] | exit codes and logging |

mod args;
mod check;
mod cli;
mod cmd;
mod dispatch;
mod env;
mod environment;
mod exit;
mod keys;
mod log_feed;
mod logging;
mod manifest;
mod output;
mod plan;
mod progress;
mod session;
mod sniff;
mod style;
mod table;

use std::process::ExitCode;

use cli::Cli;
use env::Env;
use exit::Exit;
use output::Output;

fn main() -> ExitCode {
    let cli = Cli::read();
    let env = Env::read();
    let mut output = Output::new(cli.json, env.no_color).wide(cli.wide);
    let exit = match run(&cli, &env, &mut output) {
        Ok(()) => Exit::Done,
        Err(error) => {
            let exit = Exit::of(&error);
            if exit != Exit::Done {
                output.failure(&error, exit.code());
            }
            exit
        }
    };
    ExitCode::from(exit.code())
}

fn run(cli: &Cli, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let feed = logging::start(&cli.logging, cli.command.default_level())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Boxed, because the commands' futures are large.
    runtime.block_on(Box::pin(dispatch::run(cli, env, output, feed)))
}
