//! `nex lameduck` and `nex node lameduck`.

use clap::Args;
use nex_protocol::id::NodeId;

use crate::output::Output;
use crate::session::Session;

/// `nex lameduck`
#[derive(Debug, Args)]
pub(crate) struct LameduckArgs {
    /// Id of the node (N…)
    #[arg(value_name = "NODE")]
    node: NodeId,
}

/// Sends the command and prints the answer.
pub(crate) async fn run(args: &LameduckArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let answer = session.client.lame_duck(&args.node).await?;
    if output.is_json() {
        output.document(&answer)?;
    }
    if !answer.success {
        anyhow::bail!("Failed to issue lame duck command: node {} says no; next: read the node's own log", args.node);
    }
    if output.is_json() { Ok(()) } else { output.line(format_args!("Command to enter lame duck mode issued to {}", args.node)) }
}
