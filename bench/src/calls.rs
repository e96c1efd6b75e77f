//! Calls of functions, alternating with calls of a native responder.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use serde::Serialize;

use crate::child;
use crate::fixture::{Fixture, Way, functions};
use crate::load::{self, Sample, Summary};
use crate::plan::Plan;

/// Name and subject of the native responder.
pub(crate) const NATIVE: &str = "native";
/// Warm-up before a measurement: afterwards connections, caches and pools are steady.
pub(crate) const WARM_UP: Duration = Duration::from_millis(100);

/// One variant at one number of calls in flight, over all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) way: &'static str,
    pub(crate) variant: &'static str,
    pub(crate) in_flight: usize,
    pub(crate) p50_us: Summary,
    pub(crate) p99_us: Summary,
    pub(crate) calls_per_second: Summary,
    pub(crate) cpu_us: Summary,
    /// Ratio to the native responder on the same server in the same round.
    pub(crate) p50_ratio: Summary,
    pub(crate) p99_ratio: Summary,
    pub(crate) rate_ratio: Summary,
}

struct Variant {
    fixture: usize,
    name: &'static str,
    /// Process that answers, itself or through descendants.
    answerer: u32,
    turns: Vec<Vec<Sample>>,
}

/// The ways to functions in jailed processes.
pub(crate) const WAYS: [(&str, Way); 3] = [("direct", Way::Direct), ("shared", Way::Shared), ("relayed", Way::Relayed)];

pub(crate) async fn measure(plan: &Plan, ways: &[(&'static str, Way)]) -> Result<Vec<Row>> {
    let (mut fixtures, mut responders, mut variants) = (Vec::new(), Vec::new(), Vec::new());
    let turns = || vec![Vec::new(); plan.in_flight.len()];
    let ways = ways.iter().copied().filter(|(name, _)| plan.calls.iter().any(|call| call.starts_with(name)));
    let ways: Vec<(&'static str, Way)> = ways.collect();
    for (fixture, (way_name, way)) in ways.iter().enumerate() {
        let started = Fixture::start(*way, 1).await?;
        let responder = child::responder(&started.args, NATIVE)?;
        let (native, node) = (responder.id().unwrap_or_default(), started.node.id().unwrap_or_default());
        responders.push(responder);
        variants.push(Variant { fixture, name: NATIVE, answerer: native, turns: turns() });
        let wanted = |name: &str| plan.calls.contains(&format!("{way_name}:{name}"));
        for (name, kind, bytes) in functions().into_iter().filter(|(name, _, _)| wanted(name)) {
            started.deploy(&started.deployment(name, kind, &bytes).await?).await?;
            variants.push(Variant { fixture, name, answerer: node, turns: turns() });
        }
        // Refill the pool before measuring.
        started.warm(1).await?;
        fixtures.push(started);
    }
    let payload = Bytes::from(vec![b'x'; plan.payload_bytes]);
    for round in 0..plan.rounds {
        for (place, in_flight) in plan.in_flight.iter().enumerate() {
            // Rotate the order, so that no variant is always first or always follows the same one.
            let count = variants.len().max(1);
            variants.rotate_left((round * 2 + place) % count);
            for variant in &mut variants {
                let Some(fixture) = fixtures.get(variant.fixture) else { continue };
                let nats = fixture.client.nats();
                load::turn(nats, variant.name, *in_flight, &payload, (variant.answerer, WARM_UP)).await?;
                let turn = load::turn(nats, variant.name, *in_flight, &payload, (variant.answerer, plan.turn)).await?;
                variant.turns.get_mut(place).into_iter().for_each(|turns| turns.push(turn));
            }
        }
    }
    for responder in responders {
        child::end(responder).await?;
    }
    for fixture in fixtures {
        fixture.end().await?;
    }
    let mut rows = Vec::new();
    for (fixture, (way, _)) in ways.into_iter().enumerate() {
        for (place, in_flight) in plan.in_flight.iter().enumerate() {
            for name in [NATIVE, "wasm-echo", "js-echo"] {
                let of = |name| variants.iter().find(|it| it.fixture == fixture && it.name == name)?.turns.get(place);
                if let (Some(own), Some(native)) = (of(name), of(NATIVE)) {
                    rows.push(row(way, name, *in_flight, own, native));
                }
            }
        }
    }
    Ok(rows)
}

pub(crate) fn row(way: &'static str, variant: &'static str, in_flight: usize, own: &[Sample], native: &[Sample]) -> Row {
    let values = |of: fn(&Sample) -> f64| Summary::of(own.iter().map(of));
    let ratio = |of: fn(&Sample) -> f64| Summary::of(own.iter().zip(native).map(|(own, native)| of(own) / of(native)));
    Row {
        way,
        variant,
        in_flight,
        p50_us: values(|turn| turn.p50_us),
        p99_us: values(|turn| turn.p99_us),
        calls_per_second: values(|turn| turn.calls_per_second),
        cpu_us: values(|turn| turn.cpu_us),
        p50_ratio: ratio(|turn| turn.p50_us),
        p99_ratio: ratio(|turn| turn.p99_us),
        rate_ratio: ratio(|turn| turn.calls_per_second),
    }
}
