//! `nex up`: starts a NATS server if none answers, and a node; prints what to do next.

use anyhow::Context as _;
use clap::Args;
use nex_bus::connect::{ConnectError, Persistence, connect};
use nex_bus::settings::ConnectionSettings;
use nex_node::embedded::{EmbeddedDir, EmbeddedNats};

use crate::args::{ConnectionArgs, NodeArgs};
use crate::cmd::node_up::{Signals, start};
use crate::env::Env;
use crate::log_feed::LogFeed;
use crate::output::Output;

/// Arguments of `up`.
#[derive(Debug, Args)]
#[command(after_help = "Starts a NATS server with JetStream if none answers at the configured address. Ctrl-C stops all of it; \
                        streams and buckets are kept.")]
pub(crate) struct UpArgs {
    /// Port of the embedded NATS server [default: that of --server, 4222]
    #[arg(long, value_name = "PORT")]
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
    let loaded = args.node.load()?;
    let root = args.node.state_root(&loaded.config, env)?;
    let dir = EmbeddedDir::open(&root.join("nats")).await?;
    let mut settings = connection.settings(env)?;
    if let Some(port) = args.port {
        settings.servers = vec![format!("nats://127.0.0.1:{port}")];
    }
    let embedded = match connect(&settings, Persistence::Once).await {
        Ok(_) => None,
        Err(unreachable @ ConnectError::Unreachable { .. }) => match local_port(&settings) {
            Some(port) if is_taken(port).await => return Err(unreachable).with_context(|| taken(port)),
            Some(port) => Some(dir.start(&args.node.nats_server(env)?, port).await?),
            None => return Err(unreachable).context("an embedded NATS server is only started on this machine"),
        },
        Err(error) => return Err(error.into()),
    };
    if let Some(embedded) = &embedded {
        tracing::info!(client_url = embedded.url(), "Embedded NATS server started");
    }
    let shown = settings.shown_servers();
    let started = start(&args.node, loaded, settings, env, feed).await;
    let ended = match started {
        Ok(node) => {
            welcome(output, &shown, node.id().as_str(), embedded.is_some())?;
            node.until(&mut signals, died(embedded.as_ref())).await
        }
        Err(error) => Err(error),
    };
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    ended
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

/// The port of the configured server, if it is a single one on this machine.
fn local_port(settings: &ConnectionSettings) -> Option<u16> {
    let [server] = settings.servers.as_slice() else { return None };
    let address = server.strip_prefix("nats://").unwrap_or(server);
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (address, 4222),
    };
    matches!(host, "127.0.0.1" | "localhost" | "[::1]" | "0.0.0.0").then_some(port)
}

fn welcome(output: &mut Output, server: &str, node: &str, embedded: bool) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json(&serde_json::json!({"ready": true, "server": server, "embedded": embedded, "node": node}));
    }
    let here = if server == nex_bus::settings::DEFAULT_SERVER { String::new() } else { format!(" -s {server}") };
    let nats = if embedded { "an embedded NATS server" } else { "your NATS server" };
    output.line(format_args!(
        "\n  nex is ready: node {node} on {nats} at {server}\n\n  Next, in another terminal:\n\
         \x20   nex{here} devrun ./echo.js      run a function (a .js or .wasm file) or a service (a binary)\n\
         \x20   nex{here} call echojs hello     call it\n\
         \x20   nex{here} ps                    see what runs\n\
         \x20   nex{here} logs                  see what it says\n\n  Ctrl-C stops everything.\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_started_only_for_one_url_of_this_machine() {
        let port = |url: &str| local_port(&ConnectionSettings::to_servers(url));
        assert_eq!(port("nats://127.0.0.1:4333"), Some(4333));
        assert_eq!(port("localhost"), Some(4222));
        assert_eq!(port("nats://example.com:4222"), None);
        assert_eq!(port("tls://127.0.0.1:4222"), None);
        assert_eq!(port("nats://127.0.0.1:1,nats://127.0.0.1:2"), None);
    }
}
