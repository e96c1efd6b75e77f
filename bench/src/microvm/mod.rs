//! What microVMs cost: the way from nothing to an agent's handshake, step by step; memory; the way back to nothing; calls.
//!
//! ```text
//! bare boot:  monitor ─► kernel ─► an init that ends the machine                (nothing of nex in the guest)
//! cold boot:  network ─► monitor ─► kernel ─► init ─► agent ─► handshake        (snapshots off)
//! restored:   network ─► monitor ─► snapshot ─► init goes on ─► agent ─► handshake
//! ```
//!
//! All three take turns on one machine, so their ratios hold where their times do not: under emulation everything in a guest
//! is many times slower than on processors of its own.
//!
//! | room | what is in it |
//! |---|---|
//! | [`lab`] | sandboxes and an internal bus as a node has them, without the node |
//! | [`bare`] | the same kernel under the same monitor, with nothing in it |
//! | [`steps`] | when which step was over, told by the log and by the agent's connection |
//! | [`boots`], [`clones`], [`transport`] | the measurements |

mod bare;
mod boots;
mod clones;
mod lab;
pub(crate) mod print;
pub(crate) mod steps;
mod transport;

use anyhow::{Context as _, Result};
use nex_node::config::SandboxChoice;
use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::world::Way;
use crate::{calls, deploys};

/// Which monitor is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Monitor {
    Qemu,
    Firecracker,
}

impl Monitor {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "qemu" => Some(Self::Qemu),
            "firecracker" => Some(Self::Firecracker),
            _ => None,
        }
    }

    pub(crate) fn choice(self) -> SandboxChoice {
        match self {
            Self::Qemu => SandboxChoice::Qemu,
            Self::Firecracker => SandboxChoice::Firecracker,
        }
    }
}

/// Everything that was measured of microVMs.
#[derive(Debug, Serialize)]
pub(crate) struct MicroVms {
    pub(crate) monitor: Monitor,
    /// `kvm`, or `emulation`: then all times within guests are those of emulated processors.
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
    let lab = Box::pin(lab::Lab::open(monitor, true)).await.context("opening the sandboxes")?;
    let mut found = MicroVms {
        monitor,
        accel: lab.accel(),
        boots: None,
        clones: None,
        transport: Vec::new(),
        deploys: Vec::new(),
        calls: Vec::new(),
        failed: Vec::new(),
    };
    if wants("boots") {
        found.boots = found.part("boots", Box::pin(boots::measure(plan, &lab)).await);
    }
    if wants("clones") {
        found.clones = found.part("clones", Box::pin(clones::measure(plan, &lab)).await);
    }
    if wants("transport") {
        found.transport = found.part("transport", Box::pin(transport::measure(plan, &lab)).await).unwrap_or_default();
    }
    lab.close().await;
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
    /// A part that fails does not take with it what minutes of measuring have found.
    fn part<T>(&mut self, name: &str, measured: Result<T>) -> Option<T> {
        measured.inspect_err(|error| self.failed.push(format!("{name}: {error:#}"))).ok()
    }
}
