//! `nex completion`: what a shell needs to complete commands.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::output::Output;

/// `nex completion`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  nex completion bash > /etc/bash_completion.d/nex")]
pub(crate) struct CompletionArgs {
    /// Which shell
    shell: Shell,
}

/// Prints the script for the whole command line.
pub(crate) fn run(args: &CompletionArgs, mut command: Command, output: &mut Output) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "nex", &mut script);
    output.reply(&script)
}
