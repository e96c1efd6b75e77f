//! The command line: flags for every command, and the list of commands.

use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing::Level;

use crate::args::{ConnectionArgs, LoggingArgs};
use crate::{cmd, refused};

const EXAMPLES: &str = "Examples:
  nex up                             start NATS, if none answers, and a node
  nex devrun ./echo.js               run a function on whichever node suits best
  nex call echojs '{\"hi\":1}'         call it and print the reply
  nex ps                             what runs, on all nodes
  nex logs                           what it says, as it says it
  nex stop echojs                    stop it
  nex node ls --json                 the nodes, for a program

Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 nobody bid, 5 deadline, 6 not connected, 7 replay differs,
130 interrupted";

/// Run services and functions on a NATS system.
#[derive(Debug, Parser)]
#[command(name = "nex", version = concat!("v", env!("CARGO_PKG_VERSION")), after_help = EXAMPLES)]
#[command(disable_help_flag = true, disable_help_subcommand = true, max_term_width = 120)]
pub(crate) struct Cli {
    /// Print JSON: one document, or one line for each thing as it happens
    #[arg(long, global = true, display_order = 900)]
    pub(crate) json: bool,
    /// Print tables whole, also where they are wider than the terminal
    #[arg(long, global = true, display_order = 900)]
    pub(crate) wide: bool,
    /// Print help
    #[arg(long, short, global = true, display_order = 901, action = ArgAction::HelpShort)]
    help: Option<bool>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) logging: LoggingArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads the command line; ends the process where it is none.
    pub(crate) fn read() -> Self {
        let read = Self::command().try_get_matches().and_then(|matches| Ok((Self::from_arg_matches(&matches)?, matches)));
        let (mut cli, matches) = read.unwrap_or_else(|error| refused::end(error));
        cli.connection.note_typed(&matches);
        cli
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a node, and a NATS server if none answers
    Up(Box<cmd::up::UpArgs>),
    /// Nodes: list, inspect, probe
    #[command(visible_alias = "nodes", subcommand)]
    Node(cmd::node::NodeCommand),
    /// Upload a file and run it on whichever node suits best
    #[command(visible_alias = "yeet")]
    Devrun(cmd::devrun::DevrunArgs),
    /// Begin a function or service from a template
    New(cmd::new::NewArgs),
    /// Run an uploaded artifact on a node you name
    Run(cmd::run::RunArgs),
    /// Make what runs be what a file says: nex.toml
    Apply(cmd::apply::ApplyArgs),
    /// Write a file for apply that says what runs
    Export(cmd::export::ExportArgs),
    /// Bring back the version of a workload that ran before
    Rollback(cmd::rollback::RollbackArgs),
    /// Stop workloads
    Stop(cmd::stop::StopArgs),
    /// Call a function and print its reply
    Call(cmd::call::CallArgs),
    /// List the workloads of the namespace on all nodes
    Ps(cmd::ps::PsArgs),
    /// Show what nodes and workloads use, again and again
    Top(cmd::top::TopArgs),
    /// Files of workloads in the bucket for uploads: list, remove
    #[command(visible_alias = "artifacts", subcommand)]
    Artifact(cmd::artifact::ArtifactCommand),
    /// Images kept in NATS, which run where no registry is: push, pull, list, remove
    #[command(visible_alias = "images", subcommand)]
    Image(cmd::image::ImageCommand),
    /// Values that workloads use by name, which only their nodes can open: set, list, remove
    #[command(visible_alias = "secrets", subcommand)]
    Secret(cmd::secret::SecretCommand),
    /// Show all that is known of a workload, also after its end: what happened to it, the state of its triggers
    Describe(cmd::describe::DescribeArgs),
    /// Messages that triggers gave up: list, show, remove, redrive
    #[command(subcommand)]
    Dead(cmd::dead::DeadCommand),
    /// Call a function once more with a message that is stored or was given up, and see what differs
    Replay(cmd::replay::ReplayArgs),
    /// Watch what workloads write, and what they have written
    Logs(cmd::logs::LogsArgs),
    /// Watch what happens to nodes and workloads, and what has happened
    Events(cmd::events::EventsArgs),
    /// Whose keys count on the node of this host: list, add, remove
    #[command(visible_alias = "issuers", subcommand)]
    Issuer(cmd::issuer::IssuerCommand),
    /// Who you are: key, context, server, user, and what that may do
    Whoami,
    /// Let a node take no more workloads, and end when nothing runs any more; there is no way back
    Lameduck(cmd::lameduck::LameduckArgs),
    /// Build the root image of microVMs: a base and the agent
    #[command(visible_alias = "fs")]
    Rootfs(cmd::rootfs::RootfsArgs),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completion(cmd::completion::CompletionArgs),
    /// Print help of a command, or about contexts, permissions, policies, sandbox, secrets, triggers
    Help(cmd::help::HelpArgs),
}

impl Command {
    /// Default of `--loglevel`: only nodes log at info, other commands print their answer.
    pub(crate) fn default_level(&self) -> Level {
        match self {
            Self::Up(_) | Self::Node(cmd::node::NodeCommand::Up(_)) => Level::INFO,
            _ => Level::WARN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "NCOBPU3MCEA7LF6XADFD4P74CHW2OL6GQZYPPRRNPDSBNQ5BJPFHHQB5";

    fn parse(line: &str) -> Cli {
        Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for line in
            ["nex --namespace dev --json node ls", "nex node ls --json --namespace dev", "nex node --json ls --namespace=dev"]
        {
            let cli = parse(line);
            assert!(cli.json && cli.connection.namespace.as_str() == "dev", "{line}");
        }
    }

    #[test]
    fn the_command_lines_of_0_2_7_are_understood() {
        for line in [
            "nex nodes ls --full",
            "nex node info NA --full",
            "nex node probe --workload echo",
            "nex yeet echo.js A=b --type v8 --trigger_subject a.b --trigger_subject c --no-stop --bucketmaxbytes 5",
            "nex devrun ./echo --argv -v --essential --stop",
            "nex run nats://B/k NA --xkey f --issuer g --name n --type wasm --hs_url u --hs_jwt j --hs_seed s A=1 B=2",
            "nex stop NA wid --name echo --issuer f",
            "nex logs --node N --workload_name echo --workload_id * --level debug",
            "nex -s nats://a,nats://b --user u --password p --creds c --nkey k --tlsfirst --timeout 750ms --jsdomain hub events",
            "nex lameduck NA --context work --conn-name me --loglevel debug --logjson --logcolor --timeformat RFC3339 --logger std",
        ] {
            parse(&line.replace("NA", NODE));
        }
    }
}
