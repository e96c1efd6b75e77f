//! `nex up`: starts a NATS server if none answers, and a node; prints what to do next.

use anyhow::Context as _;
use clap::Args;
use nex_bus::connect::{ConnectError, connect};
use nex_bus::local_context::{self, INBOX_PREFIX, local_port};
use nex_bus::settings::DEFAULT_SERVER;
use nex_node::embedded::{EmbeddedDir, EmbeddedNats};

use crate::args::{ConnectionArgs, NodeArgs};
use crate::cmd::node_up::{OnTerminate, Signals, start};
use crate::env::Env;
use crate::log_feed::LogFeed;
use crate::output::Output;

/// Arguments of `up`.
#[derive(Debug, Args)]
#[command(after_help = "Starts a NATS server with JetStream if none answers at the configured address. Ctrl-C stops all of it; \
                        streams and buckets are kept.")]
pub(crate) struct UpArgs {
    /// Port of the embedded NATS server [default: that of --server, 4222]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// Runs NATS and a node until a signal.
pub(crate) async fn run(
    args: &UpArgs,
    connection: &ConnectionArgs,
    env: &Env,
    output: &mut Output,
    feed: Option<LogFeed>,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let mut loaded = args.node.load()?;
    let root = args.node.state_root(&loaded.config, env)?;
    let dir = EmbeddedDir::open(&root.join("nats")).await?;
    let mut settings = connection.settings(env)?;
    if let Some(port) = args.port {
        settings.servers = vec![format!("nats://127.0.0.1:{port}")];
    }
    let port = local_port(&settings.servers);
    if port.is_some() && settings.nkey_file.as_ref().is_some_and(|file| !file.is_file()) {
        // What an earlier 'nex up' wrote, of a state directory that is gone: the server gets a new key.
        settings.nkey_file = None;
    }
    let embedded = match connect(&settings).await {
        Ok(_) => None,
        Err(unreachable @ ConnectError::Unreachable { .. }) => match port {
            Some(port) if is_taken(port).await => return Err(unreachable).with_context(|| taken(port)),
            Some(port) => Some(dir.start(&args.node.nats_server(env)?, port).await?),
            None => return Err(unreachable).context("an embedded NATS server is only started on this machine"),
        },
        Err(other @ (ConnectError::Silent { .. } | ConnectError::NotNats { .. })) => {
            return Err(other).with_context(|| port.map_or_else(|| "NATS was not reached".to_owned(), taken));
        }
        Err(error) => return Err(error.into()),
    };
    let shown = settings.shown_servers();
    let mut repeated = repeated(args, connection, &shown);
    if let Some(embedded) = &embedded {
        tracing::info!(client_url = embedded.url(), "Embedded NATS server started");
        settings.nkey_file = Some(embedded.key_file());
        settings.inbox_prefix = Some(INBOX_PREFIX.to_owned());
        loaded.config.anonymous_functions = true;
        if let Some(other) = write_context(embedded, port.unwrap_or_default(), env) {
            repeated = other;
        }
    }
    let started = Box::pin(start(&args.node, loaded, settings, env, feed)).await;
    let ended = match started {
        Ok(node) => {
            welcome(output, &shown, node.id().as_str(), embedded.is_some(), &repeated)?;
            node.until(&mut signals, died(embedded.as_ref()), OnTerminate::Stop, None).await
        }
        Err(error) => Err(error),
    };
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    ended
}

/// The flags by which other commands reach the same server.
fn repeated(args: &UpArgs, connection: &ConnectionArgs, server: &str) -> String {
    let repeated = connection.repeated();
    let is_named = args.port.is_some() || connection.server.is_some() || server != DEFAULT_SERVER;
    let is_said = connection.context.is_some() || repeated.contains(" -s ");
    if is_named && !is_said { format!(" -s {server}{repeated}") } else { repeated }
}

/// Lets `nex` and `nats` find the server's key by themselves; gives the flags that they need where another context is selected.
fn write_context(embedded: &EmbeddedNats, port: u16, env: &Env) -> Option<String> {
    match local_context::write(port, &embedded.key_file(), &env.directories) {
        Ok(written) if written.is_selected => {
            tracing::debug!(context = written.name, "the NATS context is selected");
            None
        }
        Ok(written) => {
            tracing::info!("for the NATS CLI: nats --context {}", written.name);
            Some(format!(" --context {}", written.name))
        }
        Err(error) => {
            let key = embedded.key_file();
            tracing::warn!(%error, "no NATS context could be written; with other commands give --nkey {}", key.display());
            Some(format!(" -s {} --nkey {}", embedded.url(), key.display()))
        }
    }
}

async fn died(embedded: Option<&EmbeddedNats>) -> anyhow::Error {
    match embedded {
        Some(embedded) => {
            embedded.exited().await;
            anyhow::anyhow!("the embedded NATS server died; next: see its log in the state directory, then run 'nex up' again")
        }
        None => std::future::pending().await,
    }
}

/// Whether something else accepts connections on the port.
async fn is_taken(port: u16) -> bool {
    tokio::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).await.is_ok()
}

fn taken(port: u16) -> String {
    format!("something that is no NATS server has port {port}; next: stop it, or choose another port with --port")
}

fn welcome(output: &mut Output, server: &str, node: &str, embedded: bool, repeated: &str) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json(&serde_json::json!({"ready": true, "server": server, "embedded": embedded, "node": node}));
    }
    let nats = if embedded { "an embedded NATS server" } else { "your NATS server" };
    let next = [
        ("nex new hello".to_owned(), "begin a function from a template; it says how to run it"),
        (format!("nex{repeated} devrun ./echo.js"), "run a function (a .js or .wasm file) or a service (a binary)"),
        (format!("nex{repeated} call echojs hello"), "call it"),
        (format!("nex{repeated} ps"), "see what runs"),
        (format!("nex{repeated} logs"), "see what it says"),
    ];
    let width = next.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
    let next: String = next.iter().map(|(command, what)| format!("    {command:width$}    {what}\n")).collect();
    output.line(format_args!(
        "\n  nex is ready: node {node} on {nats} at {server}\n\n  Next, in another terminal:\n{next}\n  Ctrl-C stops everything.\n"
    ))
}
