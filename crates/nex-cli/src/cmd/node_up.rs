//! `nex node up`: runs a node in the foreground, connected to an existing NATS server.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use nex_bus::settings::ConnectionSettings;
use nex_node::{Node, NodeOptions};
use nex_process::{ProcessId, TaskScope};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{ConnectionArgs, Loaded, NodeArgs};
use crate::env::Env;
use crate::log_feed::LogFeed;
use crate::output::Output;

/// Arguments of `node up`.
#[derive(Debug, Args)]
pub(crate) struct NodeUpArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
}

/// Flags of 0.2.7 without effect, accepted with a warning.
#[derive(Debug, Args)]
pub(crate) struct TelemetryArgs {
    #[arg(long, hide = true)]
    pub(crate) metrics: bool,
    #[arg(long = "metrics_port", hide = true)]
    pub(crate) metrics_port: Option<u16>,
    #[arg(long = "otel_metrics_exporter", hide = true)]
    pub(crate) otel_metrics_exporter: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) traces: bool,
    #[arg(long = "otel_traces_exporter", hide = true)]
    pub(crate) otel_traces_exporter: Option<String>,
}

/// Runs a node until a signal.
pub(crate) async fn run(
    args: &NodeUpArgs,
    connection: &ConnectionArgs,
    env: &Env,
    output: &mut Output,
    feed: Option<LogFeed>,
) -> anyhow::Result<()> {
    let telemetry = &args.telemetry;
    let asked =
        telemetry.metrics_port.is_some() || telemetry.otel_metrics_exporter.is_some() || telemetry.otel_traces_exporter.is_some();
    if telemetry.metrics || telemetry.traces || asked {
        tracing::warn!("telemetry flags have no effect: this build exports no telemetry");
    }
    let mut signals = Signals::listen()?;
    let loaded = args.node.load()?;
    let settings = connection.settings(env)?;
    let node = start(&args.node, loaded, settings, env, feed).await?;
    output.note(format_args!("node {} is ready", node.id()));
    node.until(&mut signals, std::future::pending()).await
}

/// A running node with its pid file.
pub(crate) struct Running {
    node: Node,
    _own_log: TaskScope,
    _pid_file: Option<PidFile>,
}

/// Starts a node and waits until it answers and an agent is warm.
pub(crate) async fn start(
    args: &NodeArgs,
    loaded: Loaded,
    connection: ConnectionSettings,
    env: &Env,
    feed: Option<LogFeed>,
) -> anyhow::Result<Running> {
    let Loaded { config, file } = loaded;
    match &file {
        Some(file) => tracing::info!("Loaded node configuration from '{}'", file.display()),
        None => tracing::info!("no configuration file: every type of workload, in jailed processes"),
    }
    let pid_file = config.pid_file.clone().map(PidFile::write).transpose()?;
    let options = NodeOptions {
        connection,
        state_dir: args.state_root(&config, env)?.join("node"),
        agent_binary: args.agent(&config, env)?,
        nats_server: args.nats_server(env)?,
        resource_dir: args.resources(&config, env)?,
        nexus: args.nexus.clone(),
        config,
    };
    let node = Node::start(options).await.context("failed to initialize node")?;
    match node.warm().await {
        Ok(()) => {
            let own_log = TaskScope::new("own log");
            if let Some(feed) = feed {
                own_log.spawn("own log", feed.publish(node.nats().clone(), node.identity().node.clone()));
            }
            Ok(Running { node, _own_log: own_log, _pid_file: pid_file })
        }
        Err(error) => {
            node.stop().await;
            Err(error.into())
        }
    }
}

impl Running {
    /// The node's public key.
    pub(crate) fn id(&self) -> &nex_protocol::id::NodeId {
        &self.node.identity().node
    }

    /// Runs until a signal or until `lost` resolves, then stops in order. A second signal ends the process at once.
    pub(crate) async fn until(self, signals: &mut Signals, lost: impl Future<Output = anyhow::Error>) -> anyhow::Result<()> {
        let ended = tokio::select! {
            name = signals.next() => {
                tracing::info!("{name} received, stopping; once more to stop at once");
                Ok(())
            }
            error = lost => Err(error),
        };
        tokio::select! {
            () = self.node.stop() => ended,
            name = signals.next() => anyhow::bail!("{name} received again: stopped at once; next: the next start removes what is left"),
        }
    }
}

/// The signals that stop a node.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    /// SIGHUP, unless `nohup` ignores it.
    hangup: Option<Signal>,
}

impl Signals {
    /// Installs the handlers. Call this before anything is started.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot handle signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            quit: on(SignalKind::quit())?,
            hangup: (!ignores_hangup()).then(|| on(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.quit.recv() => "SIGQUIT",
            () = received(self.hangup.as_mut()) => "SIGHUP",
        }
    }
}

async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether this process was started with SIGHUP ignored.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|signals| signals & 1 == 1)
}

/// A file with the pid of this process, removed on drop.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: PathBuf) -> anyhow::Result<Self> {
        let other = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).and_then(ProcessId::of);
        if let Some(other) = other.filter(|other| Some(*other) != ProcessId::own() && other.is_alive()) {
            anyhow::bail!("node process already running; pid: {}; next: stop it, or name another pid_filepath", other.pid);
        }
        std::fs::write(&path, std::process::id().to_string())
            .with_context(|| format!("cannot write the pid file {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}
