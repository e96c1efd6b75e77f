//! `nex node up`: runs a node in the foreground, connected to an existing NATS server.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use nex_bus::settings::ConnectionSettings;
use nex_node::config::RELOADED;
use nex_node::{Node, NodeOptions};
use nex_process::{ProcessId, TaskScope};
use serde_json::{Map, Value};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::running_node::{self, RunningNode, Told};
use crate::args::{ConnectionArgs, Loaded, NodeArgs};
use crate::env::Env;
use crate::log_feed::LogFeed;
use crate::output::Output;

/// Arguments of `node up`.
#[derive(Debug, Args)]
pub(crate) struct NodeUpArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// What becomes of workloads on SIGTERM: stop ends them, leave lets them run for the next process, which takes them over. Ctrl-C and
    /// `nex node stop` always end everything
    #[arg(long, value_name = "WHAT", env = "NEX_ON_TERMINATE", hide_env_values = true, default_value = "stop")]
    pub(crate) on_terminate: OnTerminate,
    /// Say whether the configuration and the programs can be used, and end
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
}

/// What becomes of workloads when a supervisor ends the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnTerminate {
    /// They end.
    Stop,
    /// They run on.
    Leave,
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
    let loaded = args.node.load()?;
    let settings = connection.settings(env)?;
    if args.check {
        return check(&args.node, &loaded, env, output).await;
    }
    let mut signals = Signals::listen()?;
    let root = args.node.state_root(&loaded.config, env)?.join("node");
    let mut node = Box::pin(start(&args.node, loaded, settings, env, feed)).await?;
    node.told = Some(RunningNode::tell(&root)?);
    output.note(format_args!("node {} is ready", node.id()));
    let reload = Reload { args: &args.node, text: config_text(node.file.as_deref()) };
    node.until(&mut signals, std::future::pending(), args.on_terminate, Some(reload)).await
}

/// What can be said of a node before it is started.
async fn check(args: &NodeArgs, loaded: &Loaded, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    nex_node::rehearsal::host_services(&loaded.config)?;
    args.nats_server(env)?;
    super::preflight::check_agent(&args.agent(&loaded.config, env)?).await?;
    let file = loaded.file.as_ref().map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    match output.is_json() {
        true => output.document(&serde_json::json!({"usable": true, "config": loaded.file})),
        false => output.line(format_args!("✅ The configuration can be used ({file}), and so can the programs")),
    }
}

/// A running node with its pid file.
pub(crate) struct Running {
    node: Node,
    /// What it says of itself to `nex node upgrade`, if it can be upgraded.
    told: Option<Told>,
    file: Option<PathBuf>,
    _own_log: TaskScope,
    pid_file: Option<PidFile>,
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
            Ok(Running { node, told: None, file, _own_log: own_log, pid_file })
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

    /// Runs until a signal, until it has drained, or until `lost` resolves, then stops in order. A second signal ends the process at once.
    pub(crate) async fn until(
        self,
        signals: &mut Signals,
        lost: impl Future<Output = anyhow::Error>,
        on_terminate: OnTerminate,
        mut reload: Option<Reload<'_>>,
    ) -> anyhow::Result<()> {
        tokio::pin!(lost);
        let ended = loop {
            tokio::select! {
                signal = signals.next() => match (signal, &mut reload) {
                    (Received::Hangup, Some(reload)) if !signals.has_terminal => reload.again(&self.node),
                    (Received::Terminate, _) if on_terminate == OnTerminate::Leave => {
                        tracing::info!("{} received, leaving the workloads to the next process", signal.name());
                        self.leave().await;
                    }
                    (Received::Upgrade, _) if self.told.is_some() => {
                        tracing::info!("becoming the program that is at the node's path now; the workloads run on");
                        self.upgrade().await;
                    }
                    (Received::Upgrade, _) => tracing::warn!("only `nex node up` can be upgraded while it runs"),
                    _ => {
                        tracing::info!("{} received, stopping; once more to stop at once", signal.name());
                        break Ok(());
                    }
                },
                () = self.node.drained() => {
                    tracing::info!("the node has drained, stopping");
                    break Ok(());
                }
                error = &mut lost => break Err(error),
            }
        };
        tokio::select! {
            () = self.node.stop() => ended,
            signal = signals.next() => {
                let name = signal.name();
                anyhow::bail!("{name} received again: stopped at once; next: the next start removes what is left")
            }
        }
    }

    /// Goes on as the program that is at this one's path now, with the same arguments.
    async fn upgrade(self) -> ! {
        let program = self.told.as_ref().map(|told| told.node().program.clone()).unwrap_or_default();
        self.node.leave().await;
        let error = running_node::become_program(&program);
        tracing::error!(
            program = %program.display(), %error,
            "the program could not be started; what runs goes on; next: start the node again on the same state directory"
        );
        std::process::exit(1)
    }

    /// Ends this process and nothing else: every destructor from here on would end what is to run on.
    async fn leave(self) -> ! {
        self.node.leave().await;
        drop((self.pid_file, self.told));
        std::process::exit(0)
    }
}

/// What it takes to read the configuration again.
pub(crate) struct Reload<'a> {
    args: &'a NodeArgs,
    /// The file as it was read last.
    text: Map<String, Value>,
}

impl Reload<'_> {
    /// Reads the configuration again; what cannot be changed is named. One that is not valid changes nothing.
    fn again(&mut self, node: &Node) {
        let loaded = match self.args.load() {
            Ok(loaded) => loaded,
            Err(error) => return tracing::error!("the configuration is not read again: {error:#}"),
        };
        let text = config_text(loaded.file.as_deref());
        let keys = self.text.keys().chain(text.keys()).filter(|key| self.text.get(*key) != text.get(*key));
        let (counts, waits): (BTreeSet<&str>, BTreeSet<&str>) = keys.map(String::as_str).partition(|key| RELOADED.contains(key));
        let list = |keys: BTreeSet<&str>| keys.into_iter().collect::<Vec<_>>().join(", ");
        if !waits.is_empty() {
            tracing::warn!("these keys of the configuration count from the next start on: {}", list(waits));
        }
        tracing::info!(
            "configuration read again; changed: {}",
            if counts.is_empty() { "nothing".to_owned() } else { list(counts) }
        );
        node.reload(loaded.config);
        self.text = text;
    }
}

/// The members of a configuration file that was found to be valid.
fn config_text(file: Option<&Path>) -> Map<String, Value> {
    let text = file.and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// The signals that stop a node.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    /// SIGUSR2, by which `nex node upgrade` says that the program has changed.
    upgrade: Signal,
    /// SIGHUP, unless `nohup` ignores it.
    hangup: Option<Signal>,
    /// Whether it was started at a terminal, whose end is told by SIGHUP; to others that says to read the configuration again.
    has_terminal: bool,
}

impl Signals {
    /// Installs the handlers. Call this before anything is started.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot handle signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            quit: on(SignalKind::quit())?,
            upgrade: on(SignalKind::user_defined2())?,
            has_terminal: std::io::stdin().is_terminal(),
            hangup: (!ignores_hangup()).then(|| on(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.interrupt.recv() => Received::Interrupt,
            _ = self.terminate.recv() => Received::Terminate,
            _ = self.quit.recv() => Received::Quit,
            _ = self.upgrade.recv() => Received::Upgrade,
            () = received(self.hangup.as_mut()) => Received::Hangup,
        }
    }
}

/// A signal that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    Interrupt,
    Terminate,
    Quit,
    Hangup,
    Upgrade,
}

impl Received {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Quit => "SIGQUIT",
            Self::Hangup => "SIGHUP",
            Self::Upgrade => "SIGUSR2",
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
