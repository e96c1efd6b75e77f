//! Workloads that have ended, with how, and their last lines: kept for a day, so many in all and of each namespace, the oldest go first.
//! Written in the step that forgets the workload, see [`super::owed`].

use nex_protocol::control::EndedWorkload;
use nex_protocol::id::Namespace;
use redb::{Error, ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{Journal, JournalError, failed};

/// By when it ended, seconds since 1970, namespace, and id.
type Table = TableDefinition<'static, (i64, &'static str, &'static str), &'static [u8]>;
const ENDED: Table = TableDefinition::new("ended");

/// How long each is kept, seconds.
pub const KEPT: i64 = 24 * 3_600;
/// Most kept in all, and of one namespace.
pub const IN_ALL: usize = 256;
/// Most kept of one namespace: one that crashes again and again does not push out what others want to see.
pub const OF_A_NAMESPACE: usize = 64;

/// A workload that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedRecord {
    /// Its namespace.
    pub namespace: Namespace,
    /// The id of the token that it was deployed by; empty in entries of older nodes.
    #[serde(default)]
    pub token: String,
    /// What is told of it, its last lines included.
    pub told: EndedWorkload,
}

impl EndedRecord {
    /// What is told of it, and where it was.
    #[must_use]
    pub fn with_namespace(&self) -> EndedWorkload {
        EndedWorkload { namespace: self.namespace.to_string(), ..self.told.clone() }
    }
}

/// Makes the table.
pub(super) fn open(write: &WriteTransaction) -> Result<(), Error> {
    write.open_table(ENDED)?;
    Ok(())
}

/// Keeps one more; forgets those that are too old or too many.
pub(super) fn keep(write: &WriteTransaction, ended: &EndedRecord) -> Result<(), Error> {
    let mut table = write.open_table(ENDED)?;
    let (at, namespace) = (ended.told.exit.at, ended.namespace.as_str());
    let bytes = serde_json::to_vec(ended).unwrap_or_default();
    table.insert((at, namespace, ended.told.id.as_str()), bytes.as_slice())?;
    let mut keys = Vec::new();
    for entry in table.iter()? {
        let (key, _) = entry?;
        let (at, namespace, id) = key.value();
        keys.push((at, namespace.to_owned(), id.to_owned()));
    }
    let mut of_it = keys.iter().filter(|(_, other, _)| other == namespace).count();
    let mut in_all = keys.len();
    for (ended_at, other, id) in &keys {
        let is_crowded = in_all > IN_ALL || (other == namespace && of_it > OF_A_NAMESPACE);
        if is_crowded || *ended_at < at.saturating_sub(KEPT) {
            table.remove((*ended_at, other.as_str(), id.as_str()))?;
            in_all -= 1;
            of_it -= usize::from(other == namespace);
        }
    }
    Ok(())
}

impl Journal {
    /// Those that ended within the last day, the oldest first.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn ended(&self, now: i64) -> Result<Vec<EndedRecord>, JournalError> {
        let since = |read: &ReadTransaction| {
            let mut found = Vec::new();
            for entry in read.open_table(ENDED)?.range((now.saturating_sub(KEPT), "", "")..)? {
                let (_, value) = entry?;
                match serde_json::from_slice(value.value()) {
                    Ok(record) => found.push(record),
                    Err(error) => tracing::warn!(%error, "a workload that has ended cannot be read and is passed over"),
                }
            }
            Ok(found)
        };
        self.store.read(since).map_err(failed("reading it"))
    }
}

#[cfg(test)]
mod tests {
    use nex_protocol::control::LastExit;

    use super::*;

    fn ended(namespace: &str, id: &str, at: i64) -> EndedRecord {
        let told = EndedWorkload { id: id.into(), exit: LastExit { at, ..LastExit::default() }, ..EndedWorkload::default() };
        EndedRecord { namespace: namespace.parse().unwrap(), token: String::new(), told }
    }

    #[test]
    fn the_old_and_the_many_go_and_no_namespace_pushes_out_another() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("journal.redb")).unwrap();
        let keep = |ended: &EndedRecord| journal.store.write(|write| super::keep(write, ended)).unwrap();
        keep(&ended("quiet", "old", 0));
        keep(&ended("quiet", "first", KEPT + 1));
        assert_eq!(journal.ended(KEPT + 1).unwrap().len(), 1, "what is older than a day is gone");
        for number in 0..2 * OF_A_NAMESPACE {
            keep(&ended("busy", &format!("w{number:04}"), KEPT + 2));
        }
        let left = journal.ended(KEPT + 2).unwrap();
        assert_eq!((left.len(), left[0].told.id.as_str()), (OF_A_NAMESPACE + 1, "first"));
        assert_eq!(left.last().unwrap().told.id, format!("w{:04}", 2 * OF_A_NAMESPACE - 1));
        for namespace in 0..10 {
            for number in 0..OF_A_NAMESPACE {
                keep(&ended(&format!("n{namespace}"), &format!("w{number}"), KEPT + 3));
            }
        }
        assert_eq!(journal.ended(KEPT + 3).unwrap().len(), IN_ALL);
        assert_eq!(journal.ended(3 * KEPT).unwrap(), []);
    }
}
