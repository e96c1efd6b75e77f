//! `nex completion`: what a shell needs to complete commands.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::output::Output;

/// `nex completion`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  nex completion bash > /etc/bash_completion.d/nex")]
pub(crate) struct CompletionArgs {
    /// Which shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionArgs, output: &mut Output) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "nex", &mut script);
    output.reply(&script)
}
