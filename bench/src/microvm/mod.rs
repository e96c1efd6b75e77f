//! Measures microVMs: the steps of a start up to the agent's handshake, memory, the stop, and calls.
//!
//! ```text
//! bare boot:  monitor ─► kernel ─► an init that ends the machine                (nothing of nex in the guest)
//! cold boot:  network ─► monitor ─► kernel ─► init ─► agent ─► handshake        (snapshots off)
//! restored:   network ─► monitor ─► snapshot ─► init resumes ─► agent ─► handshake
//! ```
//!
//! All three alternate on one machine, so their ratios are comparable even if their times are not: under emulation a guest is many times
//! slower than on KVM.
//!
//! | module | content |
//! |---|---|
//! | [`fixture`] | sandboxes and an internal bus like a node's, without the node |
//! | [`bare`] | the same kernel under the same monitor, with an empty guest |
//! | [`steps`] | times of the steps, from the log and from the agent's connection |
//! | [`boots`], [`clones`], [`transport`] | the measurements |

mod bare;
mod boots;
mod clones;
mod fixture;
pub(crate) mod print;
pub(crate) mod steps;
mod transport;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::fixture::Way;
use crate::monitor::Monitor;
use crate::plan::Plan;
use crate::{calls, deploys};

/// Everything that was measured of microVMs.
#[derive(Debug, Serialize)]
pub(crate) struct MicroVms {
    pub(crate) monitor: Monitor,
    /// `kvm`, or `emulation`, which makes all times within guests those of emulated processors.
    pub(crate) accel: String,
    pub(crate) boots: Option<boots::Boots>,
    pub(crate) clones: Option<clones::Clones>,
    pub(crate) transport: Vec<calls::Row>,
    pub(crate) deploys: Vec<deploys::Row>,
    pub(crate) calls: Vec<calls::Row>,
    /// Parts that could not be measured, and why.
    pub(crate) failed: Vec<String>,
}

pub(crate) async fn measure(plan: &Plan, monitor: Monitor, wants: impl Fn(&str) -> bool) -> Result<MicroVms> {
    let fixture = Box::pin(fixture::AgentFixture::open(monitor, true)).await.context("opening the sandboxes")?;
    let mut found = MicroVms {
        monitor,
        accel: fixture.accel(),
        boots: None,
        clones: None,
        transport: Vec::new(),
        deploys: Vec::new(),
        calls: Vec::new(),
        failed: Vec::new(),
    };
    if wants("boots") {
        found.boots = found.part("boots", Box::pin(boots::measure(plan, &fixture)).await);
    }
    if wants("clones") {
        found.clones = found.part("clones", Box::pin(clones::measure(plan, &fixture)).await);
    }
    if wants("transport") {
        found.transport = found.part("transport", Box::pin(transport::measure(plan, &fixture)).await).unwrap_or_default();
    }
    fixture.close().await;
    let way = Way::MicroVm(monitor);
    if wants("deploys") {
        found.deploys = found.part("deploys", Box::pin(deploys::measure(plan, way)).await).unwrap_or_default();
    }
    if wants("calls") {
        found.calls = found.part("calls", Box::pin(calls::measure(plan, &[("microvm", way)])).await).unwrap_or_default();
    }
    Ok(found)
}

impl MicroVms {
    /// Records a failed part, so that the results of the others are kept.
    fn part<T>(&mut self, name: &str, measured: Result<T>) -> Option<T> {
        measured.inspect_err(|error| self.failed.push(format!("{name}: {error:#}"))).ok()
    }
}
