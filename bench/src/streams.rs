//! Messages of a stream: a function by its trigger, and a consumer written by hand that does as little, in turn on the same server.
//!
//! What is measured is what the server sees: from the publication of a message to its acknowledgement.
#![expect(clippy::print_stdout, reason = "the report of a program for the terminal")]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use async_nats::jetstream::{self, stream};
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use nex_client::deploy::Deployment;
use nex_protocol::trigger::{DurableTrigger, Trigger};
use serde::Serialize;
use tokio::process::Child;

use crate::calls::NATIVE;
use crate::child;
use crate::fixture::{Fixture, Way, functions};
use crate::load::Summary;
use crate::plan::{Plan, TIMEOUT};
use crate::processes::processor_time;
use crate::report::summary;

/// Messages that a consumer has in hand at once: as many as a function's calls.
pub(crate) const BATCH: usize = 64;
/// Messages whose latency is measured in a turn.
const SINGLE: usize = 200;

/// One variant over all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) variant: &'static str,
    pub(crate) messages_per_second: Summary,
    pub(crate) p50_us: Summary,
    pub(crate) p99_us: Summary,
    pub(crate) cpu_us: Summary,
    /// To the consumer by hand of the same round.
    pub(crate) rate_ratio: Summary,
    pub(crate) p50_ratio: Summary,
    pub(crate) p99_ratio: Summary,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

struct Variant {
    name: &'static str,
    answerer: u32,
    acks: Subscriber,
    turns: Vec<Sample>,
}

pub(crate) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let fixture = Fixture::start(Way::Direct, 2).await?;
    let (nats, context) = (fixture.client.nats().clone(), jetstream::new(fixture.client.nats().clone()));
    let node = fixture.node.id().unwrap_or_default();
    let mut variants = Vec::new();
    context.create_stream(of(NATIVE)).await?;
    let consumer: Child = child::consumer(&fixture.args, &stream_of(NATIVE))?;
    variants.push(variant(&nats, NATIVE, consumer.id().unwrap_or_default()).await?);
    for (name, kind, bytes) in functions() {
        context.create_stream(of(name)).await?;
        let Ok(Trigger::Durable(trigger)) = format!("stream:{}?start=all", stream_of(name)).parse::<Trigger>() else {
            bail!("the trigger is none")
        };
        let deployment = fixture.deployment(name, kind, &bytes).await?;
        let durable: Vec<DurableTrigger> = vec![trigger];
        fixture.deploy(&Deployment { triggers: Vec::new(), durable, ..deployment }).await?;
        variants.push(variant(&nats, name, node).await?);
    }
    let payload = Bytes::from(vec![b'x'; plan.payload_bytes]);
    for round in 0..plan.rounds {
        let count = variants.len().max(1);
        variants.rotate_left(round % count);
        for variant in &mut variants {
            variant.many(&nats, &payload, plan.messages / 10).await?;
            let sample = variant.turn(&nats, &payload, plan.messages).await?;
            variant.turns.push(sample);
        }
    }
    child::end(consumer).await?;
    fixture.end().await?;
    let native = variants.iter().find(|it| it.name == NATIVE).map(|it| it.turns.clone()).unwrap_or_default();
    let mut rows: Vec<Row> = variants.iter().map(|variant| row(variant, &native)).collect();
    rows.sort_by_key(|row| row.variant != NATIVE);
    Ok(rows)
}

fn stream_of(variant: &str) -> String {
    variant.to_ascii_uppercase()
}

fn subject_of(variant: &str) -> String {
    format!("bench.streams.{variant}")
}

fn of(variant: &str) -> stream::Config {
    stream::Config {
        name: stream_of(variant),
        subjects: vec![subject_of(variant)],
        storage: stream::StorageType::Memory,
        ..stream::Config::default()
    }
}

async fn variant(nats: &Client, name: &'static str, answerer: u32) -> Result<Variant> {
    let acks = nats.subscribe(format!("$JS.ACK.{}.>", stream_of(name))).await?;
    nats.flush().await?;
    Ok(Variant { name, answerer, acks, turns: Vec::new() })
}

impl Variant {
    async fn turn(&mut self, nats: &Client, payload: &Bytes, messages: usize) -> Result<Sample> {
        let spent = processor_time(self.answerer);
        let took = self.many(nats, payload, messages).await?;
        let cpu = processor_time(self.answerer).saturating_sub(spent);
        let mut singles = Vec::new();
        for _ in 0..SINGLE {
            singles.push(self.many(nats, payload, 1).await?);
        }
        singles.sort_unstable();
        let at = |percent: usize| {
            let index = (singles.len() * percent / 100).min(singles.len().saturating_sub(1));
            singles.get(index).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
        };
        Ok(Sample {
            rate: messages as f64 / took.as_secs_f64(),
            p50: at(50),
            p99: at(99),
            cpu: cpu.as_secs_f64() * 1e6 / messages as f64,
        })
    }

    /// Publishes so many, and waits until all are acknowledged.
    async fn many(&mut self, nats: &Client, payload: &Bytes, messages: usize) -> Result<Duration> {
        let (began, subject) = (Instant::now(), subject_of(self.name));
        let publish = async {
            for _ in 0..messages {
                nats.publish(subject.clone(), payload.clone()).await?;
            }
            nats.flush().await?;
            Ok::<_, anyhow::Error>(())
        };
        let acks = &mut self.acks;
        let acknowledged = async {
            let mut seen = 0;
            while seen < messages {
                let ack = acks.next().await.context("the subscription ended")?;
                seen += usize::from(ack.payload.is_empty() || ack.payload.starts_with(b"+ACK"));
            }
            Ok::<_, anyhow::Error>(())
        };
        let both = async { tokio::try_join!(publish, acknowledged) };
        tokio::time::timeout(TIMEOUT, both).await.with_context(|| format!("{} does not acknowledge", self.name))??;
        Ok(began.elapsed())
    }
}

fn row(variant: &Variant, native: &[Sample]) -> Row {
    let values = |of: fn(&Sample) -> f64| Summary::of(variant.turns.iter().map(of));
    let ratio = |of: fn(&Sample) -> f64| Summary::of(variant.turns.iter().zip(native).map(|(own, native)| of(own) / of(native)));
    Row {
        variant: variant.name,
        messages_per_second: values(|it| it.rate),
        p50_us: values(|it| it.p50),
        p99_us: values(|it| it.p99),
        cpu_us: values(|it| it.cpu),
        rate_ratio: ratio(|it| it.rate),
        p50_ratio: ratio(|it| it.p50),
        p99_ratio: ratio(|it| it.p99),
    }
}

/// Prints the table.
pub(crate) fn print(rows: &[Row], plan: &Plan) {
    if rows.is_empty() {
        return;
    }
    println!(
        "\nMessages of a stream, published to acknowledged, {BATCH} in hand; {} of {} bytes, then {SINGLE} one after the other; median of {} rounds\n",
        plan.messages, plan.payload_bytes, plan.rounds
    );
    println!(
        "  {:<10} {:>10} {:>8} {:>8} {:>8}   {:<18} {:<18} {:<18}",
        "variant", "messages/s", "p50 µs", "p99 µs", "CPU µs", "messages/s ratio", "p50 ratio", "p99 ratio"
    );
    for row in rows {
        println!(
            "  {:<10} {:>10.0} {:>8.0} {:>8.0} {:>8.1}   {:<18} {:<18} {:<18}",
            row.variant,
            row.messages_per_second.median,
            row.p50_us.median,
            row.p99_us.median,
            row.cpu_us.median,
            summary(&row.rate_ratio),
            summary(&row.p50_ratio),
            summary(&row.p99_ratio),
        );
    }
}
