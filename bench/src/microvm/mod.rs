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
}

pub(crate) async fn measure(plan: &Plan, monitor: Monitor, wants: impl Fn(&str) -> bool) -> Result<MicroVms> {
    let lab = Box::pin(lab::Lab::open(monitor, true)).await.context("opening the sandboxes")?;
    let accel = lab.accel();
    let boots = match wants("boots") {
        true => Some(Box::pin(boots::measure(plan, &lab)).await.context("measuring boots")?),
        false => None,
    };
    let clones = match wants("clones") {
        true => Some(Box::pin(clones::measure(plan, &lab)).await.context("measuring clones")?),
        false => None,
    };
    let transport = match wants("transport") {
        true => Box::pin(transport::measure(plan, &lab)).await.context("measuring the transport")?,
        false => Vec::new(),
    };
    lab.close().await;
    let way = Way::MicroVm(monitor);
    let deploys = match wants("deploys") {
        true => Box::pin(deploys::measure(plan, way)).await.context("measuring deploys")?,
        false => Vec::new(),
    };
    let calls = match wants("calls") {
        true => Box::pin(calls::measure(plan, &[("microvm", way)])).await.context("measuring calls")?,
        false => Vec::new(),
    };
    Ok(MicroVms { monitor, accel, boots, clones, transport, deploys, calls })
}
