//! Sizes of the measurements.

use std::time::Duration;

use serde::Serialize;

/// Upper bound on every wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(180);

/// Sizes of all measurements.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Plan {
    /// Number of rounds; every variant is measured in each.
    pub(crate) rounds: usize,
    /// Duration of one measurement.
    #[serde(skip)]
    pub(crate) turn: Duration,
    /// Numbers of concurrent requests to measure.
    pub(crate) in_flight: Vec<usize>,
    /// Variants to call, `way:name`; the native responder is always called.
    pub(crate) calls: Vec<String>,
    /// Size of a request, in bytes.
    pub(crate) payload_bytes: usize,
    /// Messages of a stream in a turn.
    pub(crate) messages: usize,
    /// Number of deploys, per type.
    pub(crate) deploys: usize,
    /// Number of starts of a node.
    pub(crate) starts: usize,
    /// Number of warm agents whose memory is measured.
    pub(crate) warm_agents: usize,
    /// Number of functions whose memory is measured.
    pub(crate) idle_functions: usize,
    /// Number of functions on one shared agent, per type.
    pub(crate) shared_functions: usize,
    /// Number of boots of a microVM, both without and with an agent.
    pub(crate) boots: usize,
    /// How often a pool of microVMs is filled.
    pub(crate) refills: usize,
}

impl Plan {
    /// The plan behind the promised numbers; takes minutes.
    pub(crate) fn full() -> Self {
        Self {
            rounds: 7,
            turn: Duration::from_millis(1_500),
            in_flight: vec![1, 16, 64],
            calls: ["direct", "shared", "relayed"]
                .iter()
                .flat_map(|way| [format!("{way}:wasm-echo"), format!("{way}:js-echo")])
                .collect(),
            payload_bytes: 16,
            messages: 20_000,
            deploys: 20,
            starts: 10,
            warm_agents: 8,
            idle_functions: 50,
            shared_functions: 1_000,
            boots: 7,
            refills: 3,
        }
    }

    /// A smoke test; takes about a minute.
    pub(crate) fn quick() -> Self {
        let counts = Self {
            messages: 4_000,
            starts: 4,
            warm_agents: 4,
            idle_functions: 8,
            shared_functions: 200,
            boots: 2,
            refills: 1,
            ..Self::full()
        };
        Self { rounds: 3, turn: Duration::from_millis(400), ..counts }
    }

    /// The plan for microVMs, which may be emulated.
    pub(crate) fn for_microvms(self) -> Self {
        let calls = ["microvm:wasm-echo", "microvm:js-echo"].map(str::to_owned).to_vec();
        Self { calls, in_flight: vec![1, 16], deploys: self.deploys / 2, ..self }
    }
}
