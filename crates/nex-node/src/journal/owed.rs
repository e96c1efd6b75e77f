//! Events that the world is owed: that a workload runs is written down in the step that first records it, that it has ended in the one
//! that forgets it, and either is forgotten when NATS has it. What a killed node did not get to tell, the next one tells, under the same
//! event id.

use nex_protocol::event::{CloudEvent, kind};
use nex_protocol::id::WorkloadId;
use redb::{Error, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::ended::{self, EndedRecord};
use super::{Journal, JournalError, Table, WORKLOADS};

pub(super) const TABLE: Table = Table::new("owed");

/// An event, and where it is to be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwedEvent {
    /// Its subject.
    pub subject: String,
    /// The event.
    pub event: CloudEvent,
}

impl OwedEvent {
    /// Its key: of one workload the event of its start comes first.
    #[must_use]
    pub fn key(&self, workload: &WorkloadId) -> String {
        key(workload, &self.event.r#type)
    }
}

fn key(workload: &WorkloadId, kind: &str) -> String {
    format!("{workload}.{kind}")
}

/// Remembers an event of a workload.
pub(super) fn owe(write: &WriteTransaction, workload: &WorkloadId, owed: &OwedEvent) -> Result<(), Error> {
    let bytes = serde_json::to_vec(owed).unwrap_or_default();
    write.open_table(TABLE)?.insert(owed.key(workload).as_str(), bytes.as_slice())?;
    Ok(())
}

/// Forgets that the world was to hear that it runs: nobody will.
pub(super) fn withdraw(write: &WriteTransaction, workload: &WorkloadId) -> Result<(), Error> {
    write.open_table(TABLE)?.remove(key(workload, kind::WORKLOAD_DEPLOYED).as_str())?;
    Ok(())
}

impl Journal {
    /// Forgets a workload that is over, and remembers the event that tells so and how it ended; all or nothing. That it ran, if nobody
    /// was told so, nobody is told any more.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn end_workload(
        &self,
        id: WorkloadId,
        owed: OwedEvent,
        ended: EndedRecord,
        announced: bool,
    ) -> Result<(), JournalError> {
        self.in_background("ending an entry", move |write| {
            write.open_table(WORKLOADS)?.remove(id.as_str())?;
            if !announced {
                withdraw(write, &id)?;
            }
            owe(write, &id, &owed)?;
            ended::keep(write, &ended)
        })
        .await
    }

    /// What is owed, by its key.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn owed(&self) -> Result<Vec<(String, OwedEvent)>, JournalError> {
        self.all::<OwedEvent>(TABLE)
    }

    /// Forgets what was told.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn told(&self, keys: Vec<String>) -> Result<(), JournalError> {
        self.in_background("removing an entry", move |write| {
            let mut table = write.open_table(TABLE)?;
            for key in &keys {
                table.remove(key.as_str())?;
            }
            Ok(())
        })
        .await
    }
}
