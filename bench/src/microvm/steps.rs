//! Times of the steps up to a handshake: the host's from the log of the sandboxes and of the monitor's driver, the guest's from the agent's
//! connection to the bus, which passes through a proxy here.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The last step.
pub(crate) const HANDSHAKE: &str = "handshake heard";
const CONNECTED: &str = "agent at the bus";
const GREETED: &str = "agent logs in";
/// Log messages that end a step, and the step's name.
const LOGGED: [(&str, &str); 5] = [
    ("connected to the network", "directory and network"),
    ("the monitor answers", "monitor started"),
    ("the machine runs", "snapshot loaded, or kernel placed"),
    ("the guest is ready", "guest listens"),
    ("the guest has its identity", "welcome said"),
];

/// Finished steps of the agent that is being started, in order.
static MARKS: Mutex<Vec<(&'static str, Instant)>> = Mutex::new(Vec::new());

fn marks() -> MutexGuard<'static, Vec<(&'static str, Instant)>> {
    MARKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a new measurement.
pub(crate) fn begin() {
    let mut marks = marks();
    marks.clear();
    marks.push(("", Instant::now()));
}

/// Marks the end of a step.
pub(crate) fn mark(step: &'static str) {
    marks().push((step, Instant::now()));
}

/// The steps, each with the milliseconds since the one before.
pub(crate) fn taken() -> Vec<(&'static str, f64)> {
    let marks = marks();
    let pairs = marks.iter().zip(marks.iter().skip(1));
    pairs.map(|((_, before), (step, at))| (*step, at.duration_since(*before).as_secs_f64() * 1e3)).collect()
}

/// The last finished step.
pub(crate) fn last() -> String {
    marks().last().map_or_else(String::new, |(step, at)| format!("'{step}', {:?} ago", at.elapsed()))
}

/// Subscribes to the log.
pub(crate) fn listen() -> Result<()> {
    Ok(tracing_subscriber::registry().with(Listener).try_init()?)
}

struct Listener;

impl<S: tracing::Subscriber> Layer<S> for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        ["nex_sandbox", "nex_vmm"].iter().any(|room| metadata.target().starts_with(room))
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut Message);
    }
}

struct Message;

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != "message" {
            return;
        }
        let said = format!("{value:?}");
        LOGGED.iter().filter(|(message, _)| *message == said).for_each(|(_, step)| mark(step));
    }
}

/// A proxy in front of the bus that marks steps.
pub(crate) struct BusProxy {
    host: IpAddr,
    port: u16,
    _passing: JoinSet<()>,
}

impl BusProxy {
    pub(crate) async fn open(host: IpAddr, upstream: String) -> Result<Self> {
        let listener = TcpListener::bind((host, 0)).await?;
        let port = listener.local_addr()?.port();
        let mut passing = JoinSet::new();
        passing.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((agent, _)) = listener.accept().await {
                mark(CONNECTED);
                let upstream = upstream.clone();
                connections.spawn(async move { pass(agent, &upstream).await.ok() });
            }
        });
        Ok(Self { host, port, _passing: passing })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("tls://{}:{}", self.host, self.port)
    }
}

async fn pass(agent: TcpStream, upstream: &str) -> std::io::Result<()> {
    let bus = TcpStream::connect(upstream).await?;
    agent.set_nodelay(true)?;
    bus.set_nodelay(true)?;
    let ((mut from_agent, mut to_agent), (mut from_bus, mut to_bus)) = (agent.into_split(), bus.into_split());
    let up = async {
        let mut chunk = vec![0; 16 * 1024];
        let mut silent = true;
        loop {
            let count = from_agent.read(&mut chunk).await?;
            if std::mem::take(&mut silent) {
                mark(GREETED);
            }
            match chunk.get(..count) {
                Some(bytes) if !bytes.is_empty() => to_bus.write_all(bytes).await?,
                _ => return to_bus.shutdown().await,
            }
        }
    };
    tokio::try_join!(up, tokio::io::copy(&mut from_bus, &mut to_agent)).map(drop)
}
