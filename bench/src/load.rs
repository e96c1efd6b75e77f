//! Generates load and summarizes measurements.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::plan::TIMEOUT;
use crate::processes::processor_time;

/// Result of one measurement.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) calls_per_second: f64,
    /// Processor time of the answering processes per call; the number that load on the machine affects least.
    pub(crate) cpu_us: f64,
}

/// Median and range.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(values.len() / 2), min: at(0), max: at(values.len().saturating_sub(1)) }
    }
}

/// Durations, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Times {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) min_ms: f64,
    pub(crate) max_ms: f64,
    pub(crate) count: usize,
}

impl Times {
    pub(crate) fn of(mut spans: Vec<Duration>) -> Self {
        spans.sort_unstable();
        let ms = |percent| percentile(&spans, percent).as_secs_f64() * 1e3;
        Self { p50_ms: ms(50), p99_ms: ms(99), min_ms: ms(0), max_ms: ms(100), count: spans.len() }
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}

/// Calls a subject at full speed for a time; each of the `in_flight` callers has one request outstanding.
pub(crate) async fn turn(
    client: &async_nats::Client,
    subject: &str,
    in_flight: usize,
    payload: &Bytes,
    (answerer, span): (u32, Duration),
) -> Result<Sample> {
    let spent = processor_time(answerer);
    let end = Instant::now() + span;
    let began = Instant::now();
    let subject: Arc<str> = subject.into();
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        callers.spawn(caller(client.clone(), Arc::clone(&subject), payload.clone(), end));
    }
    let mut all = Vec::new();
    while let Some(took) = callers.join_next().await {
        all.extend(took??);
    }
    let elapsed = began.elapsed();
    let spent = processor_time(answerer).saturating_sub(spent);
    all.sort_unstable();
    let micros = |percent| percentile(&all, percent).as_secs_f64() * 1e6;
    let calls = all.len() as f64;
    Ok(Sample {
        p50_us: micros(50),
        p99_us: micros(99),
        calls_per_second: calls / elapsed.as_secs_f64(),
        cpu_us: spent.as_secs_f64() * 1e6 / calls,
    })
}

async fn caller(client: async_nats::Client, subject: Arc<str>, payload: Bytes, end: Instant) -> Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(16_384);
    let subject: async_nats::Subject = subject.to_string().into();
    loop {
        let began = Instant::now();
        if began >= end {
            return Ok(took);
        }
        let answer = client.request(subject.clone(), payload.clone()).await.with_context(|| format!("calling {subject}"))?;
        took.push(began.elapsed());
        // Check the reply: failing calls would be fast.
        if answer.headers.is_some() || answer.payload.is_empty() {
            bail!("{subject} answered with an error: {}", String::from_utf8_lossy(&answer.payload));
        }
    }
}

/// Waits until a subject is answered.
pub(crate) async fn wait_for(client: &async_nats::Client, subject: &str, payload: &Bytes) -> Result<()> {
    let answers = || async { client.request(subject.to_owned(), payload.clone()).await.is_ok() };
    if nex_testkit::eventually(TIMEOUT, answers).await { Ok(()) } else { bail!("nobody answers on {subject}") }
}
