//! This program as a child process: a native responder, a node, or nothing.
//!
//! A child ends when its standard input is closed, so none outlives the benchmark.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use futures::StreamExt as _;
use nex_bus::connect::connect;
use nex_bus::settings::ConnectionSettings;
use nex_http::HttpConfig;
use nex_node::config::SandboxChoice;
use nex_node::{Node, NodeConfig, NodeOptions};
use nex_testkit::{dist_binary, machines, nats_server_binary};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::monitor::Monitor;
use crate::server;

/// Arguments of a node, passed as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeArgs {
    pub(crate) url: String,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) user_jwt: Option<String>,
    pub(crate) user_seed: Option<String>,
    pub(crate) state_dir: PathBuf,
    pub(crate) pool_size: usize,
    /// Monitor of its microVMs; jailed processes if absent.
    pub(crate) monitor: Option<Monitor>,
    /// Network of its workloads; a free one of the usual size if absent.
    pub(crate) subnet: Option<String>,
    /// Where it listens for HTTP, if anywhere.
    pub(crate) http: Option<SocketAddr>,
}

impl NodeArgs {
    /// Connects to a server without credentials.
    pub(crate) fn to(url: &str) -> Self {
        let (user, password, user_jwt, user_seed) = (None, None, None, None);
        Self {
            url: url.to_owned(),
            user,
            password,
            user_jwt,
            user_seed,
            state_dir: PathBuf::new(),
            pool_size: 1,
            monitor: None,
            subnet: None,
            http: None,
        }
    }

    /// Connection settings of the node and its clients.
    pub(crate) fn connection(&self) -> ConnectionSettings {
        let mut settings = ConnectionSettings::to_servers(&self.url);
        settings.user.clone_from(&self.user);
        settings.password = self.password.clone().map(Into::into);
        settings.user_jwt = self.user_jwt.clone().map(Into::into);
        settings.user_seed = self.user_seed.clone().map(Into::into);
        settings
    }
}

/// Starts a native responder on a subject.
pub(crate) fn responder(node: &NodeArgs, subject: &str) -> Result<Child> {
    spawn(&["child-responder", &serde_json::to_string(node)?, subject])
}

/// Starts a consumer of a stream.
pub(crate) fn consumer(node: &NodeArgs, stream: &str) -> Result<Child> {
    spawn(&["child-consumer", &serde_json::to_string(node)?, stream])
}

/// Starts a server of HTTP, which answers by itself or asks on a subject.
pub(crate) fn server(node: &NodeArgs, listen: SocketAddr, asks: Option<&str>) -> Result<Child> {
    spawn(&["child-server", &serde_json::to_string(node)?, &listen.to_string(), asks.unwrap_or_default()])
}

/// Starts a node.
pub(crate) fn node(node: &NodeArgs) -> Result<Child> {
    spawn(&["child-node", &serde_json::to_string(node)?])
}

/// Starts a process that exits at once.
pub(crate) fn nothing() -> Result<Child> {
    spawn(&["child-nothing"])
}

fn spawn(args: &[&str]) -> Result<Child> {
    let own = std::env::current_exe()?;
    Command::new(own).args(args).stdin(Stdio::piped()).spawn().context("cannot start this program again")
}

/// Stops a child and waits for it.
pub(crate) async fn end(mut child: Child) -> Result<()> {
    drop(child.stdin.take());
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { bail!("a child process of the benchmark failed: {status}") }
}

/// Entry point of a child.
pub(crate) fn main(mode: &str, args: &[String]) -> Result<()> {
    // As many threads as an agent has.
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match (mode, args) {
        ("nothing", []) => Ok(()),
        ("responder", [node, subject]) => {
            let runtime = runtime()?;
            let responded = runtime.block_on(respond(&serde_json::from_str(node)?, subject));
            // A thread may still be reading standard input; do not wait for it.
            runtime.shutdown_background();
            responded
        }
        ("consumer", [node, stream]) => {
            let (runtime, node) = (runtime()?, serde_json::from_str::<NodeArgs>(node)?);
            let consumed = runtime.block_on(until_stopped(async {
                let client = connect(&node.connection()).await?;
                Box::pin(server::consume(client, stream)).await
            }));
            runtime.shutdown_background();
            consumed
        }
        ("server", [node, listen, asks]) => {
            let (runtime, node) = (runtime()?, serde_json::from_str::<NodeArgs>(node)?);
            let served = runtime.block_on(until_stopped(async {
                let asked = match asks.as_str() {
                    "" => None,
                    subject => Some((connect(&node.connection()).await?, subject.to_owned())),
                };
                server::serve(listen.parse()?, asked).await
            }));
            runtime.shutdown_background();
            served
        }
        ("node", [node]) => {
            // Show what goes wrong.
            tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
            let runtime = runtime()?;
            let ran = runtime.block_on(run_node(serde_json::from_str(node)?));
            runtime.shutdown_background();
            ran
        }
        _ => bail!("unknown child {mode}"),
    }
}

/// The obvious responder: subscribe and answer each message in order.
async fn respond(node: &NodeArgs, subject: &str) -> Result<()> {
    let client = connect(&node.connection()).await?;
    let mut requests = client.queue_subscribe(subject.to_owned(), "bench".to_owned()).await?;
    client.flush().await?;
    let mut stopped = std::pin::pin!(stopped());
    loop {
        // Both branches are cancel-safe: neither a message nor the end of the input is lost.
        tokio::select! {
            request = requests.next() => {
                let request = request.ok_or_else(|| anyhow!("the subscription ended"))?;
                if let Some(reply) = request.reply {
                    client.publish(reply, request.payload).await?;
                }
            }
            () = &mut stopped => return Ok(()),
        }
    }
}

async fn until_stopped(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        done = work => done,
        () = stopped() => Ok(()),
    }
}

async fn run_node(args: NodeArgs) -> Result<()> {
    let sandbox = args.monitor.map_or(SandboxChoice::Process, Monitor::choice);
    let http = match args.http {
        Some(listen) => Some(HttpConfig {
            listen,
            namespace: "default".parse()?,
            hosts: BTreeMap::new(),
            tls: None,
            max_body_bytes: 1 << 20,
            timeout: Duration::from_secs(30),
        }),
        None => None,
    };
    let mut config = NodeConfig { pool_size: args.pool_size, sandbox, http, ..NodeConfig::default() };
    config.microvm.network.subnet = args.subnet.as_ref().map(|subnet| subnet.parse()).transpose()?;
    let options = NodeOptions {
        connection: args.connection(),
        config,
        state_dir: args.state_dir,
        agent_binary: dist_binary("nex-agent"),
        nats_server: nats_server_binary(),
        resource_dir: machines::resources().unwrap_or_else(|| "resources".into()),
        nexus: "bench".into(),
    };
    let node = Box::pin(Node::start(options)).await?;
    stopped().await;
    node.stop().await;
    Ok(())
}

/// Waits for the end of standard input, or for Ctrl-C.
async fn stopped() {
    let mut input = tokio::io::stdin();
    let mut buffer = [0; 64];
    let ended = async { while input.read(&mut buffer).await.is_ok_and(|count| count > 0) {} };
    tokio::select! {
        () = ended => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
