//! `nex`: the command line. Reads arguments and environment, does one command, and says how it went.
//!
//! | room | what is in it |
//! |---|---|
//! | [`cli`], [`args`], [`mod@env`] | the command line and the environment; nothing else reads either |
//! | [`dispatch`], [`cmd`] | one file for each command, and what chooses among them |
//! | [`session`], [`keys`] | a connection, and who we are |
//! | [`sniff`], [`check`] | files and texts made into what commands need |
//! | [`output`], [`table`], [`style`], [`progress`] | everything that is printed |
//! | [`exit`], [`logging`], [`log_feed`] | how it ended, and what happened meanwhile |

mod args;
mod check;
mod cli;
mod cmd;
mod dispatch;
mod env;
mod exit;
mod keys;
mod log_feed;
mod logging;
mod output;
mod progress;
mod session;
mod sniff;
mod style;
mod table;

use std::process::ExitCode;

use clap::Parser as _;
use cli::Cli;
use env::Env;
use exit::Exit;
use output::Output;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let env = Env::read();
    let mut output = Output::new(cli.json, env.no_color);
    let exit = match run(&cli, &env, &mut output) {
        Ok(()) => Exit::Done,
        Err(error) => {
            let exit = Exit::of(&error);
            if exit != Exit::Done {
                output.failure(&error);
            }
            exit
        }
    };
    ExitCode::from(exit.code())
}

fn run(cli: &Cli, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let feed = logging::start(&cli.logging, cli.command.default_level())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Boxed: the commands' futures are large, and there is one per process.
    runtime.block_on(Box::pin(dispatch::run(cli, env, output, feed)))
}
