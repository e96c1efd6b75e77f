//! What must survive the process: a small crash-safe table of workloads, the events that tell of their ends, children
//! and seen tokens.
//! (Sandboxes record themselves, in their own directories.)
//!
//! Every write is on disk before its caller goes on. Values are JSON, so a later version reads an earlier one's.

mod damage;
mod ended;
mod owed;
mod store;
mod tokens;

pub use damage::Damage;
pub use ended::{EndedRecord, IN_ALL, KEPT, OF_A_NAMESPACE};
pub use owed::OwedEvent;
pub use tokens::{Spending, SpentToken, TokenId};

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use nex_process::{ProcessId, crash_point};
use nex_protocol::deploy::DeployRequest;
use nex_protocol::digest::Digest;
use nex_protocol::id::{InstanceId, Namespace, SecretName, WorkloadId};
use redb::{ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::agents::AgentRecord;
use store::Store;

type Table = TableDefinition<'static, &'static str, &'static [u8]>;
const WORKLOADS: Table = TableDefinition::new("workloads");
const CHILDREN: Table = TableDefinition::new("children");
/// The key of the internal bus among the children.
const BUS: &str = "bus";

/// Why the journal did not take or give something.
#[derive(Debug, thiserror::Error)]
#[error("the node's journal failed while {doing}: {why}; next: check the disk under the state directory")]
pub struct JournalError {
    doing: &'static str,
    why: String,
}

fn failed<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> JournalError {
    move |error| JournalError { doing, why: error.into().to_string() }
}

#[cfg(test)]
impl JournalError {
    /// A failure of the disk.
    pub(crate) fn simulated() -> Self {
        failed("writing an entry")(redb::Error::Io(std::io::Error::other("simulated")))
    }
}

/// A workload as it was accepted: enough to start it again without its deployer. The environment stays sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkloadRecord {
    /// Its namespace.
    pub namespace: Namespace,
    /// The request.
    pub request: DeployRequest,
    /// Digest of its artifact, which lies in the cache.
    pub digest: Digest,
    /// When it was deployed, seconds since 1970: what its token is judged by, however often it is restored.
    pub deployed_at: i64,
    /// What runs it now; absent in entries of older nodes.
    #[serde(default)]
    pub running: Option<RunningRecord>,
    /// What was counted of it.
    #[serde(default)]
    pub life: LifeRecord,
}

/// What a later process goes on counting from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LifeRecord {
    /// How often it was started again.
    pub restarts: u32,
    /// Failures in a row, each soon after its start.
    pub streak: u32,
    /// Whether the world was told that it runs.
    pub announced: bool,
    /// Since when it waits to be started again, seconds since 1970, if it does.
    pub backing_off_since: Option<i64>,
}

/// The instance of a workload, and its agent: what a later process needs to talk to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunningRecord {
    /// The agent.
    pub agent: AgentRecord,
    /// The instance.
    pub instance: InstanceId,
    /// Whether instances of other workloads are on the agent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_shared: bool,
    /// Digest of the triggers that the agent subscribed by itself, and of how; absent where the node relays them.
    #[serde(default)]
    pub direct: Option<Digest>,
    /// When it was started, seconds since 1970; 0 in entries of older nodes.
    #[serde(default)]
    pub since: i64,
    /// The versions of its secrets that it was started with; empty in entries of older nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<SecretName, u64>,
}

/// The internal bus: the process, and where it listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusRecord {
    /// Which process it is.
    #[serde(flatten)]
    pub process: ProcessId,
    /// Its URL; empty in entries of older nodes.
    #[serde(default)]
    pub url: String,
}

impl BusRecord {
    /// The port it listens on; 0 if that is not known.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
    }
}

/// The journal. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    store: Arc<Store>,
    damage: Option<Arc<Damage>>,
}

impl Journal {
    /// Opens or makes the file. One that is damaged is kept aside, see [`Self::damage`].
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let (database, damage) = damage::open(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed("opening it"))?;
        let store = Store::new(path.to_owned(), database);
        store.write(tokens::give_back).map_err(failed("opening it"))?;
        Ok(Self { store: Arc::new(store), damage: damage.map(Arc::new) })
    }

    /// What was found wrong with the file when it was opened.
    #[must_use]
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_deref()
    }

    /// The workloads that were accepted and are not over.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn workloads(&self) -> Result<Vec<(WorkloadId, WorkloadRecord)>, JournalError> {
        let workloads = self.all::<WorkloadRecord>(WORKLOADS)?;
        Ok(workloads.into_iter().filter_map(|(id, record)| Some((id.parse().ok()?, record))).collect())
    }

    /// Records a workload, for which its token stays used, and the event that tells that it runs, as long as nobody was told; on disk when
    /// this returns.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn put_workload(
        &self,
        id: WorkloadId,
        record: WorkloadRecord,
        token: TokenId,
        owed: Option<OwedEvent>,
    ) -> Result<(), JournalError> {
        self.in_background("writing an entry", move |write| {
            let bytes = serde_json::to_vec(&record).unwrap_or_default();
            write.open_table(WORKLOADS)?.insert(id.as_str(), bytes.as_slice())?;
            tokens::settle(write, &token)?;
            owed.iter().try_for_each(|owed| owed::owe(write, &id, owed))
        })
        .await
    }

    /// Forgets a workload of which nobody was told.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn remove_workload(&self, id: WorkloadId) -> Result<(), JournalError> {
        self.in_background("removing an entry", move |write| {
            write.open_table(WORKLOADS)?.remove(id.as_str())?;
            owed::withdraw(write, &id)
        })
        .await
    }

    /// The internal bus as this process, or an earlier one, started it.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn bus(&self) -> Result<Option<BusRecord>, JournalError> {
        Ok(self.all(CHILDREN)?.into_iter().find_map(|(role, bus)| (role == BUS).then_some(bus)))
    }

    /// Records the internal bus.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn put_bus(&self, bus: &BusRecord) -> Result<(), JournalError> {
        self.put(CHILDREN, BUS, bus)
    }

    /// Forgets the internal bus, which has ended.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn remove_bus(&self) -> Result<(), JournalError> {
        self.remove(CHILDREN, BUS)
    }

    /// Remembers a token until it expires; forgets those that have. Off the async threads: it waits for the disk.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn spend_token(&self, token: SpentToken, now: i64) -> Result<Spending, JournalError> {
        let store = Arc::clone(&self.store);
        crash_point("journal: before a token is spent");
        let spend = move || store.with(|database| tokens::spend(database, &token, now));
        let spent = tokio::task::spawn_blocking(spend).await;
        crash_point("journal: after a token was spent");
        // It ends otherwise only when the runtime does.
        spent.unwrap_or(Ok(Spending::TooMany)).map_err(failed("remembering a token"))
    }

    /// The request of a token was refused, or is done: it stays used.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn settle_token(&self, token: TokenId) -> Result<(), JournalError> {
        self.in_background("remembering a token", move |write| tokens::settle(write, &token)).await
    }

    /// Writes wait for the disk: off the async threads.
    async fn in_background(
        &self,
        doing: &'static str,
        work: impl Fn(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> Result<(), JournalError> {
        let store = Arc::clone(&self.store);
        crash_point("journal: before a write");
        let written = tokio::task::spawn_blocking(move || store.write(work)).await;
        crash_point("journal: after a write");
        written.unwrap_or_else(|error| Err(redb::Error::Io(std::io::Error::other(error)))).map_err(failed(doing))
    }

    fn put<T: Serialize>(&self, table: Table, key: &str, value: &T) -> Result<(), JournalError> {
        let bytes = serde_json::to_vec(value).unwrap_or_default();
        let put = |write: &WriteTransaction| {
            write.open_table(table)?.insert(key, bytes.as_slice())?;
            Ok(())
        };
        self.store.write(put).map_err(failed("writing an entry"))
    }

    fn remove(&self, table: Table, key: &str) -> Result<(), JournalError> {
        let remove = |write: &WriteTransaction| {
            write.open_table(table)?.remove(key)?;
            Ok(())
        };
        self.store.write(remove).map_err(failed("removing an entry"))
    }

    fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(String, T)>, JournalError> {
        let all = |read: &ReadTransaction| {
            let mut found = Vec::new();
            for entry in read.open_table(table)?.iter()? {
                let (key, value) = entry?;
                match serde_json::from_slice(value.value()) {
                    Ok(record) => found.push((key.value().to_owned(), record)),
                    Err(error) => {
                        tracing::warn!(key = key.value(), %error, "an entry of the journal cannot be read and is passed over");
                    }
                }
            }
            Ok(found)
        };
        self.store.read(all).map_err(failed("reading it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        let bus = BusRecord { process: ProcessId::own().unwrap(), url: "tls://127.0.0.1:4000".into() };
        {
            let journal = Journal::open(&path).unwrap();
            journal.put_bus(&bus).unwrap();
        }
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.bus().unwrap(), Some(bus));
        journal.put(CHILDREN, BUS, &ProcessId::own().unwrap()).unwrap();
        assert_eq!(journal.bus().unwrap().unwrap().url, "", "an entry of an older node");
        journal.remove_bus().unwrap();
        assert_eq!(journal.bus().unwrap(), None);
    }
}
