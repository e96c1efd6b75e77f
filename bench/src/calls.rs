//! Calls of functions beside calls of a native responder, in turns.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use serde::Serialize;

use crate::child;
use crate::load::{self, Spread, Turn};
use crate::plan::Plan;
use crate::world::{Way, World, functions};

/// Name and subject of the native responder.
pub(crate) const NATIVE: &str = "native";
/// Calls before the ones that count: connections, caches and pools are then as they stay.
pub(crate) const WARM_UP: Duration = Duration::from_millis(100);

/// One variant at one number of calls in flight, over all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) way: &'static str,
    pub(crate) variant: &'static str,
    pub(crate) in_flight: usize,
    pub(crate) p50_us: Spread,
    pub(crate) p99_us: Spread,
    pub(crate) calls_per_second: Spread,
    pub(crate) cpu_us: Spread,
    /// To the native responder on the same server in the same round.
    pub(crate) p50_ratio: Spread,
    pub(crate) p99_ratio: Spread,
    pub(crate) rate_ratio: Spread,
}

struct Variant {
    world: usize,
    name: &'static str,
    /// Process that answers, itself or by others that descend from it.
    answerer: u32,
    turns: Vec<Vec<Turn>>,
}

/// Of jailed processes.
pub(crate) const WAYS: [(&str, Way); 2] = [("direct", Way::Direct), ("relayed", Way::Relayed)];

pub(crate) async fn measure(plan: &Plan, ways: &[(&'static str, Way)]) -> Result<Vec<Row>> {
    let (mut worlds, mut responders, mut variants) = (Vec::new(), Vec::new(), Vec::new());
    let turns = || vec![Vec::new(); plan.in_flight.len()];
    let ways = ways.iter().copied().filter(|(name, _)| plan.calls.iter().any(|call| call.starts_with(name)));
    let ways: Vec<(&'static str, Way)> = ways.collect();
    for (world, (way_name, way)) in ways.iter().enumerate() {
        let started = World::start(*way, 1).await?;
        let responder = child::responder(&started.args, NATIVE)?;
        let (native, node) = (responder.id().unwrap_or_default(), started.node.id().unwrap_or_default());
        responders.push(responder);
        variants.push(Variant { world, name: NATIVE, answerer: native, turns: turns() });
        let wanted = |name: &str| plan.calls.contains(&format!("{way_name}:{name}"));
        for (name, kind, bytes) in functions().into_iter().filter(|(name, _, _)| wanted(name)) {
            started.deploy(&started.deployment(name, kind, &bytes).await?).await?;
            variants.push(Variant { world, name, answerer: node, turns: turns() });
        }
        // The pool is full again before anything counts.
        started.warm(1).await?;
        worlds.push(started);
    }
    let payload = Bytes::from(vec![b'x'; plan.payload_bytes]);
    for round in 0..plan.rounds {
        for (place, in_flight) in plan.in_flight.iter().enumerate() {
            // Each round begins with another variant, so none is always first or always after the same one.
            let count = variants.len().max(1);
            variants.rotate_left((round * 2 + place) % count);
            for variant in &mut variants {
                let Some(world) = worlds.get(variant.world) else { continue };
                let nats = world.client.nats();
                load::turn(nats, variant.name, *in_flight, &payload, (variant.answerer, WARM_UP)).await?;
                let turn = load::turn(nats, variant.name, *in_flight, &payload, (variant.answerer, plan.turn)).await?;
                variant.turns.get_mut(place).into_iter().for_each(|turns| turns.push(turn));
            }
        }
    }
    for responder in responders {
        child::end(responder).await?;
    }
    for world in worlds {
        world.end().await?;
    }
    let mut rows = Vec::new();
    for (world, (way, _)) in ways.into_iter().enumerate() {
        for (place, in_flight) in plan.in_flight.iter().enumerate() {
            for name in [NATIVE, "wasm-echo", "js-echo"] {
                let of = |name| variants.iter().find(|it| it.world == world && it.name == name)?.turns.get(place);
                if let (Some(own), Some(native)) = (of(name), of(NATIVE)) {
                    rows.push(row(way, name, *in_flight, own, native));
                }
            }
        }
    }
    Ok(rows)
}

pub(crate) fn row(way: &'static str, variant: &'static str, in_flight: usize, own: &[Turn], native: &[Turn]) -> Row {
    let values = |of: fn(&Turn) -> f64| Spread::of(own.iter().map(of));
    let ratio = |of: fn(&Turn) -> f64| Spread::of(own.iter().zip(native).map(|(own, native)| of(own) / of(native)));
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
