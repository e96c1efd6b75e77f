//! What a node tells of itself: that it is there, that it stops, and what an earlier process did not tell.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use nex_process::{Deadline, TaskScope};
use nex_protocol::event::SYSTEM;

use crate::events::Events;
use crate::history::History;
use crate::identity::Identity;
use crate::journal::{Journal, JournalError};
use crate::outbox::Outbox;
use crate::status::NodeStatus;
use crate::workload::Workloads;
use crate::workload::runtime::DriverServices;

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Longest wait for NATS when the node stops; it may be gone.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Begins to tell, and to keep, what happens, with what an earlier process did not tell.
pub(super) fn begin(scope: &TaskScope, nats: &Client, journal: &Journal, history: &History) -> Result<Outbox, JournalError> {
    history.start(scope);
    let outbox = Outbox::start(scope, nats.clone(), journal.clone());
    for (key, event) in journal.owed()? {
        tracing::info!(event = key, "an earlier process of this node may not have told this");
        // It may be kept already: who asks tells by its id.
        history.event(event.event.namespace.as_deref().unwrap_or(SYSTEM), &event.event);
        outbox.owed(key, &event);
    }
    Ok(outbox)
}

/// The last word: that the node stops.
pub(super) async fn stopped(drivers: &DriverServices, outbox: &Outbox, nats: &Client) {
    if Deadline::after(SHUTDOWN_TIMEOUT).bound(tell_stopped(drivers, outbox, nats)).await.is_err() {
        tracing::warn!("NATS does not answer, so nobody was told that this node stops");
    }
}

async fn tell_stopped(drivers: &DriverServices, outbox: &Outbox, nats: &Client) {
    drivers.events.node_stopped();
    let by = Deadline::after(SHUTDOWN_TIMEOUT);
    tokio::join!(outbox.flushed(by), drivers.history.flushed(by));
    if let Err(error) = nats.drain().await {
        tracing::debug!(%error, "the control connection was closed already");
    }
    nats.flush().await.ok();
}

/// Says again and again that the node is there.
pub(super) async fn heartbeat(events: Events, identity: Arc<Identity>, status: Arc<NodeStatus>, registry: Workloads) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        events.heartbeat(&identity.nexus, &status.uptime(), &status.tags(), registry.count());
    }
}
