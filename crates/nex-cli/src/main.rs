//! `nex`: the command line. Reads arguments and environment, does one command, and says how it went.
//!
//! | room | what is in it |
//! |---|---|
//! | [`args`], [`mod@env`] | what the user said, and where; nothing else reads the environment |
//! | [`cmd`] | one file for each command |
//! | [`session`], [`keys`] | a connection, and who we are |
//! | [`sniff`], [`words`], [`check`] | files and texts made into what commands need |
//! | [`output`], [`table`], [`style`], [`progress`] | everything that is printed |
//! | [`exit`], [`logging`], [`log_feed`] | how it ended, and what happened meanwhile |

mod args;
mod check;
mod cmd;
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
mod words;

use std::process::ExitCode;

use args::Cli;
use clap::Parser as _;
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
    runtime.block_on(Box::pin(cmd::run(cli, env, output, feed)))
}
