//! `nex completion`: what a shell needs to complete commands. The script asks `nex` itself, which asks the nodes.

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{Args, builder::TypedValueParser as _};
use clap_complete::env::Shells;
use serde_json::json;

use crate::output::Output;

/// The variable by which a shell asks what could be written next.
pub(crate) const COMPLETE: &str = "NEX_COMPLETE";

/// `nex completion`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  nex completion bash > /etc/bash_completion.d/nex
  nex completion zsh > ~/.zfunc/_nex
  nex completion fish > ~/.config/fish/completions/nex.fish

Workloads, nodes, namespaces, secrets and contexts are completed as well: nex asks for them, on the connection that the
command line names, for at most a second and a half.")]
pub(crate) struct CompletionArgs {
    /// Which shell
    #[arg(value_parser = PossibleValuesParser::new(["bash", "elvish", "fish", "powershell", "zsh"]).map(|name| name))]
    shell: String,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionArgs, output: &mut Output) -> anyhow::Result<()> {
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell).context("this shell is not known")?;
    let mut script = Vec::new();
    shell.write_registration(COMPLETE, "nex", "nex", "nex", &mut script)?;
    if output.is_json() {
        return output.document(&json!({ "shell": args.shell, "script": String::from_utf8_lossy(&script) }));
    }
    output.reply(&script)
}
