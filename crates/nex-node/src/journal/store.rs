//! The file of the journal: each piece of work with it is one transaction, and after a failure of its disk the file is opened again.
//!
//! The library refuses all further work with a file whose disk has failed once, though a full disk may have room again a moment later.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, Error, ReadTransaction, ReadableDatabase as _, WriteTransaction};

/// The open file, or none while it cannot be opened.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    database: RwLock<Option<Database>>,
}

impl Store {
    pub(super) fn new(path: PathBuf, database: Database) -> Self {
        Self { path, database: RwLock::new(Some(database)) }
    }

    /// Does all of this or nothing of it; on disk when this returns.
    pub(super) fn write<T>(&self, work: impl Fn(&WriteTransaction) -> Result<T, Error>) -> Result<T, Error> {
        self.with(|database| {
            let write = database.begin_write()?;
            let done = work(&write)?;
            write.commit()?;
            Ok(done)
        })
    }

    /// Reads what is on disk.
    pub(super) fn read<T>(&self, work: impl Fn(&ReadTransaction) -> Result<T, Error>) -> Result<T, Error> {
        self.with(|database| work(&database.begin_read()?))
    }

    /// Works with the file. Work that is refused for an earlier failure has not begun, and is tried once more with the file opened again.
    pub(super) fn with<T>(&self, work: impl Fn(&Database) -> Result<T, Error>) -> Result<T, Error> {
        let first = attempt(self.database().as_ref(), &work);
        if !matches!(first, Err(Error::PreviousIo)) {
            return first;
        }
        self.open_again()?;
        attempt(self.database().as_ref(), &work)
    }

    fn open_again(&self) -> Result<(), Error> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: only one may have the file.
        drop(database.take());
        *database = Some(Database::open(&self.path)?);
        tracing::info!("the journal is used again after a failure of its disk");
        Ok(())
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn attempt<T>(database: Option<&Database>, work: impl Fn(&Database) -> Result<T, Error>) -> Result<T, Error> {
    database.map_or(Err(Error::PreviousIo), work)
}
