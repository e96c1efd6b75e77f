//! How much is measured.

use std::time::Duration;

use serde::Serialize;

/// Upper bound on every wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(180);

/// Sizes of all measurements.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Plan {
    /// Times every variant takes its turn.
    pub(crate) rounds: usize,
    /// How long one turn lasts.
    #[serde(skip)]
    pub(crate) turn: Duration,
    /// Requests under way at once, each its own measurement.
    pub(crate) in_flight: Vec<usize>,
    /// Variants that are called, `way:name`; a way's native responder always is.
    pub(crate) calls: Vec<String>,
    /// Bytes of a request.
    pub(crate) payload_bytes: usize,
    /// Deploys of each type.
    pub(crate) deploys: usize,
    /// Starts of a node.
    pub(crate) starts: usize,
    /// Warm agents whose memory is looked at.
    pub(crate) warm_agents: usize,
    /// Functions whose memory is looked at.
    pub(crate) idle_functions: usize,
    /// Boots of a microVM, each with nothing in it and with an agent.
    pub(crate) boots: usize,
    /// Times that a pool of microVMs is filled.
    pub(crate) refills: usize,
}

impl Plan {
    /// What the promised numbers are taken from; some minutes.
    pub(crate) fn full() -> Self {
        Self {
            rounds: 7,
            turn: Duration::from_millis(1_500),
            in_flight: vec![1, 16, 64],
            calls: ["direct:wasm-echo", "direct:js-echo", "relayed:wasm-echo", "relayed:js-echo"].map(str::to_owned).to_vec(),
            payload_bytes: 16,
            deploys: 20,
            starts: 10,
            warm_agents: 8,
            idle_functions: 50,
            boots: 7,
            refills: 3,
        }
    }

    /// Enough to see whether something broke; about a minute.
    pub(crate) fn quick() -> Self {
        let counts = Self { starts: 4, warm_agents: 4, idle_functions: 8, boots: 2, refills: 1, ..Self::full() };
        Self { rounds: 3, turn: Duration::from_millis(400), ..counts }
    }

    /// The same for microVMs, in which everything may be emulated.
    pub(crate) fn for_microvms(self) -> Self {
        let calls = ["microvm:wasm-echo", "microvm:js-echo"].map(str::to_owned).to_vec();
        Self { calls, in_flight: vec![1, 16], deploys: self.deploys / 2, ..self }
    }
}
