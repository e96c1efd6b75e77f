//! Events that the world is owed: that of a workload's end is written down in the step that forgets the workload, and forgotten when NATS
//! has it. What a killed node did not get to tell, the next one tells, under the same event id.

use nex_protocol::event::CloudEvent;
use nex_protocol::id::WorkloadId;
use serde::{Deserialize, Serialize};

use super::ended::{self, EndedRecord};
use super::{Journal, JournalError, Table, WORKLOADS, failed};

pub(super) const TABLE: Table = Table::new("owed");

/// An event, and where it is to be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwedEvent {
    /// Its subject.
    pub subject: String,
    /// The event.
    pub event: CloudEvent,
}

impl Journal {
    /// Forgets a workload that is over, and remembers the event that tells so and how it ended; all or nothing.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn end_workload(&self, id: WorkloadId, owed: OwedEvent, ended: EndedRecord) -> Result<(), JournalError> {
        self.in_background(move |journal| {
            let doing = "ending an entry";
            let bytes = serde_json::to_vec(&owed).unwrap_or_default();
            let write = journal.database.begin_write().map_err(failed(doing))?;
            write.open_table(WORKLOADS).map_err(failed(doing))?.remove(id.as_str()).map_err(failed(doing))?;
            write.open_table(TABLE).map_err(failed(doing))?.insert(id.as_str(), bytes.as_slice()).map_err(failed(doing))?;
            ended::keep(&write, &ended).map_err(failed(doing))?;
            write.commit().map_err(failed(doing))
        })
        .await
    }

    /// What is owed, by the workload that it tells of.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn owed(&self) -> Result<Vec<(WorkloadId, OwedEvent)>, JournalError> {
        let owed = self.all::<OwedEvent>(TABLE)?;
        Ok(owed.into_iter().filter_map(|(id, event)| Some((id.parse().ok()?, event))).collect())
    }

    /// Forgets what was told.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn told(&self, workloads: Vec<WorkloadId>) -> Result<(), JournalError> {
        self.in_background(move |journal| {
            let doing = "removing an entry";
            let write = journal.database.begin_write().map_err(failed(doing))?;
            {
                let mut table = write.open_table(TABLE).map_err(failed(doing))?;
                for id in &workloads {
                    table.remove(id.as_str()).map_err(failed(doing))?;
                }
            }
            write.commit().map_err(failed(doing))
        })
        .await
    }
}
