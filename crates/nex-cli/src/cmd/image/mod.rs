//! `nex image`: images of the namespace, kept in NATS.

mod pull;
mod push;
mod shelf;

use clap::Subcommand;

use crate::env::Env;
use crate::output::Output;
use crate::session::Session;

/// `nex image`
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Keep an image of a registry, a layout or an archive in NATS; only what is missing there is sent
    Push(push::PushArgs),
    /// Write an image to an archive or a layout
    Pull(pull::PullArgs),
    /// List the images of the namespace
    Ls,
    /// Remove images by their tags; what runs from them goes on
    Rm(shelf::RmArgs),
    /// Remove what no image needs any more; what a push under way needs stays
    Gc(shelf::GcArgs),
}

/// Runs it.
pub(crate) async fn run(command: &ImageCommand, session: &Session, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    match command {
        ImageCommand::Push(args) => push::run(args, session, env, output).await,
        ImageCommand::Pull(args) => pull::run(args, session, output).await,
        ImageCommand::Ls => shelf::ls(session, output).await,
        ImageCommand::Rm(args) => shelf::rm(args, session, output).await,
        ImageCommand::Gc(args) => shelf::gc(args, session, output).await,
    }
}
