//! HTTP: a function by the node's listener, beside a plain server of the same library that answers itself, and beside one that asks a
//! native responder by NATS, as somebody would write it by hand.
#![expect(clippy::print_stdout, reason = "the report of a program for the terminal")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nex_client::deploy::Deployment;
use nex_protocol::trigger::Trigger;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::calls::NATIVE;
use crate::child;
use crate::fixture::{Fixture, Way, functions};
use crate::load::Summary;
use crate::plan::{Plan, TIMEOUT};
use crate::report::summary;

/// Connections at once.
const CONNECTIONS: [usize; 2] = [1, 16];
/// The server that answers itself, and the one that asks.
const PLAIN: &str = "plain";
const ASKING: &str = "asking";

/// One variant at one number of connections, over all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) variant: &'static str,
    pub(crate) connections: usize,
    pub(crate) p50_us: Summary,
    pub(crate) p99_us: Summary,
    pub(crate) requests_per_second: Summary,
    /// To the plain server, and to the one that asks, of the same round.
    pub(crate) p50_to_plain: Summary,
    pub(crate) p50_to_asking: Summary,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    p50: f64,
    p99: f64,
    rate: f64,
}

struct Variant {
    name: &'static str,
    address: SocketAddr,
    path: String,
    turns: Vec<Vec<Sample>>,
}

pub(crate) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let listen = free_address()?;
    let fixture = Fixture::start_listening(Way::Direct, 2, Some(listen)).await?;
    let responder = child::responder(&fixture.args, NATIVE)?;
    let turns = || vec![Vec::new(); CONNECTIONS.len()];
    let (mut variants, mut servers) = (Vec::new(), vec![responder]);
    for name in [PLAIN, ASKING] {
        let address = free_address()?;
        servers.push(child::server(&fixture.args, address, (name == ASKING).then_some(NATIVE))?);
        variants.push(Variant { name, address, path: "/echo".to_owned(), turns: turns() });
    }
    for (name, kind, bytes) in functions() {
        let path = format!("/{name}");
        let Ok(Trigger::Http(route)) = format!("http:POST {path}").parse::<Trigger>() else { bail!("the trigger is none") };
        let deployment = fixture.deployment(name, kind, &bytes).await?;
        fixture.deploy(&Deployment { triggers: Vec::new(), http: vec![route], ..deployment }).await?;
        variants.push(Variant { name, address: listen, path, turns: turns() });
    }
    let body = vec![b'x'; plan.payload_bytes];
    for variant in &variants {
        let answers = async || one(variant, &body).await.is_ok();
        anyhow::ensure!(nex_testkit::eventually(TIMEOUT, answers).await, "{} does not answer", variant.name);
    }
    for round in 0..plan.rounds {
        for (place, connections) in CONNECTIONS.iter().enumerate() {
            let count = variants.len().max(1);
            variants.rotate_left((round * 2 + place) % count);
            for variant in &mut variants {
                turn(variant, *connections, &body, Duration::from_millis(100)).await?;
                let sample = turn(variant, *connections, &body, plan.turn).await?;
                variant.turns.get_mut(place).into_iter().for_each(|turns| turns.push(sample));
            }
        }
    }
    for server in servers {
        child::end(server).await?;
    }
    fixture.end().await?;
    Ok(rows(&variants))
}

fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

fn rows(variants: &[Variant]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, connections) in CONNECTIONS.iter().enumerate() {
        let of = |name: &str| variants.iter().find(|it| it.name == name).and_then(|it| it.turns.get(place));
        let (Some(plain), Some(asking)) = (of(PLAIN), of(ASKING)) else { continue };
        for name in [PLAIN, ASKING].into_iter().chain(functions().map(|(name, ..)| name)) {
            let Some(own) = of(name) else { continue };
            let values = |of: fn(&Sample) -> f64| Summary::of(own.iter().map(of));
            let ratio = |to: &[Sample]| Summary::of(own.iter().zip(to).map(|(own, to)| own.p50 / to.p50));
            rows.push(Row {
                variant: name,
                connections: *connections,
                p50_us: values(|it| it.p50),
                p99_us: values(|it| it.p99),
                requests_per_second: values(|it| it.rate),
                p50_to_plain: ratio(plain),
                p50_to_asking: ratio(asking),
            });
        }
    }
    rows
}

async fn one(variant: &Variant, body: &[u8]) -> Result<()> {
    Connection::open(variant, body).await?.exchange().await
}

/// Requests over so many connections, each after the answer to the one before.
async fn turn(variant: &Variant, connections: usize, body: &[u8], span: Duration) -> Result<Sample> {
    let mut callers = JoinSet::new();
    for _ in 0..connections {
        let mut connection = Connection::open(variant, body).await?;
        callers.spawn(async move {
            let (end, mut took) = (Instant::now() + span, Vec::new());
            loop {
                let began = Instant::now();
                if began >= end {
                    return Ok::<_, anyhow::Error>(took);
                }
                connection.exchange().await?;
                took.push(began.elapsed());
            }
        });
    }
    let (began, mut all) = (Instant::now(), Vec::new());
    while let Some(took) = callers.join_next().await {
        all.extend(took?.with_context(|| format!("calling {}", variant.name))?);
    }
    let elapsed = began.elapsed();
    all.sort_unstable();
    let at = |percent: usize| {
        let index = (all.len() * percent / 100).min(all.len().saturating_sub(1));
        all.get(index).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
    };
    Ok(Sample { p50: at(50), p99: at(99), rate: all.len() as f64 / elapsed.as_secs_f64() })
}

/// A connection that is kept, and its one request.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    read: Vec<u8>,
}

impl Connection {
    async fn open(variant: &Variant, body: &[u8]) -> Result<Self> {
        let stream = TcpStream::connect(variant.address).await?;
        stream.set_nodelay(true)?;
        let head = format!("POST {} HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n", variant.path, body.len());
        Ok(Self { stream, request: [head.as_bytes(), body].concat(), read: Vec::new() })
    }

    async fn exchange(&mut self) -> Result<()> {
        self.stream.write_all(&self.request).await?;
        self.read.clear();
        loop {
            anyhow::ensure!(self.stream.read_buf(&mut self.read).await? > 0, "the connection ended");
            let text = String::from_utf8_lossy(&self.read);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "it answered {}", head.lines().next().unwrap_or_default());
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length =
                length.and_then(|(_, value)| value.trim().parse::<usize>().ok()).context("a response without a length")?;
            if body.len() >= length {
                return Ok(());
            }
        }
    }
}

/// Prints the table.
pub(crate) fn print(rows: &[Row], plan: &Plan) {
    if rows.is_empty() {
        return;
    }
    println!(
        "\nHTTP requests of {} bytes over kept connections; median of {} rounds (min..max)\n",
        plan.payload_bytes, plan.rounds
    );
    println!(
        "  {:<10} {:>11} {:>8} {:>8} {:>10}   {:<18} {:<18}",
        "variant", "connections", "p50 µs", "p99 µs", "requests/s", "p50 to plain", "p50 to asking"
    );
    for row in rows {
        println!(
            "  {:<10} {:>11} {:>8.0} {:>8.0} {:>10.0}   {:<18} {:<18}",
            row.variant,
            row.connections,
            row.p50_us.median,
            row.p99_us.median,
            row.requests_per_second.median,
            summary(&row.p50_to_plain),
            summary(&row.p50_to_asking),
        );
    }
}
