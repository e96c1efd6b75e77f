//! A journal that cannot be read whole, after its disk or somebody damaged it: the file is kept aside, and a new one begins with what can
//! be read of it.
//!
//! What cannot be read is gone for the node: workloads that were only there are ended, as everything is that the journal does not know.

use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, Error, ReadOnlyDatabase, ReadTransaction, ReadableDatabase as _, ReadableTable as _};

use super::{CHILDREN, JournalError, Table, WORKLOADS, ended, failed, owed, tokens};
use crate::clock;

/// Tables whose entries are taken over one by one.
const SAVED: [Table; 3] = [WORKLOADS, CHILDREN, owed::TABLE];
/// Name of the damaged file.
const ASIDE: &str = "journal.damaged.redb";

/// What became of a damaged journal.
#[derive(Debug, Clone)]
pub struct Damage {
    /// Why it could not be read.
    pub why: String,
    /// Where the file is kept. One that was kept there before is replaced.
    pub kept: PathBuf,
    /// How many workloads could be read.
    pub workloads: usize,
}

/// Why a file cannot be used.
enum Unusable {
    /// What is in it is no journal.
    Damaged(String),
    /// It cannot be had: its disk refuses, or another process has it.
    Failed(Error),
}

/// Opens the file, or makes it; where it is damaged, makes a new one with what can be read.
pub(super) fn open(path: &Path) -> Result<(Database, Option<Damage>), JournalError> {
    let doing = "opening it";
    let refused = |error| failed(doing)(Error::Io(error));
    // Who tries to open a damaged file damages it more.
    let copy = copy_of(path);
    if let Err(error) = fs::copy(path, &copy)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(refused(error));
    }
    let why = match usable(path) {
        Err(Unusable::Damaged(why)) => why,
        Err(Unusable::Failed(error)) => {
            drop(fs::remove_file(&copy));
            return Err(failed(doing)(error));
        }
        Ok(database) => {
            drop(fs::remove_file(&copy));
            return Ok((database, None));
        }
    };
    let kept = path.with_file_name(ASIDE);
    fs::rename(&copy, &kept).and_then(|()| fs::remove_file(path)).map_err(refused)?;
    let saved = save(&kept);
    let database = Database::create(path).map_err(failed(doing))?;
    let workloads = begin_again(&database, &saved).map_err(failed(doing))?;
    Ok((database, Some(Damage { why, kept, workloads })))
}

/// Beside a file.
fn copy_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".copy");
    name.into()
}

/// Opens a file and reads all of it: the library looks at what is asked for only, and panics at some nonsense.
fn usable(path: &Path) -> Result<Database, Unusable> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = Database::create(path)?;
        let write = database.begin_write()?;
        for table in SAVED {
            let table = write.open_table(table)?;
            for entry in table.iter()? {
                entry?;
            }
        }
        ended::open(&write)?;
        tokens::open(&write)?;
        write.commit()?;
        Ok::<_, Error>(database)
    }));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) if is_damage(&error) => Err(Unusable::Damaged(error.to_string())),
        Ok(Err(error)) => Err(Unusable::Failed(error)),
        Err(_panic) => Err(Unusable::Damaged("what is in it makes no sense".to_owned())),
    }
}

/// Whether it is the content that is wrong, and not the disk.
fn is_damage(error: &Error) -> bool {
    match error {
        Error::Io(error) => matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof),
        Error::Corrupted(_)
        | Error::TableTypeMismatch { .. }
        | Error::TypeDefinitionChanged { .. }
        | Error::TableIsMultimap(_)
        | Error::TableIsNotMultimap(_) => true,
        _ => false,
    }
}

type Entries = Vec<(String, Vec<u8>)>;

/// Reads what can be read, of a copy: the library repairs what it opens.
fn save(kept: &Path) -> [Entries; 3] {
    let copy = copy_of(kept);
    let mut saved = [const { Vec::new() }; 3];
    if fs::copy(kept, &copy).is_ok() {
        for (table, entries) in SAVED.into_iter().zip(&mut saved) {
            // Each by itself: one that panics takes nothing from the others.
            drop(catch_unwind(AssertUnwindSafe(|| read(&copy, table, entries))));
        }
    }
    drop(fs::remove_file(&copy));
    saved
}

fn read(path: &Path, table: Table, entries: &mut Entries) -> Result<(), Error> {
    // It looks at what is asked for; whoever opens a file to write looks at all of it, and gives up at the first nonsense. A file that was
    // not closed, because its process was killed, is opened in no other way.
    match ReadOnlyDatabase::open(path) {
        Ok(database) => read_from(&database.begin_read()?, table, entries),
        Err(_not_closed) => read_from(&Database::open(path)?.begin_read()?, table, entries),
    }
}

fn read_from(read: &ReadTransaction, table: Table, entries: &mut Entries) -> Result<(), Error> {
    for entry in read.open_table(table)?.iter()? {
        let (key, value) = entry?;
        // Half an entry is of no use to anybody.
        if serde_json::from_slice::<serde::de::IgnoredAny>(value.value()).is_ok() {
            entries.push((key.value().to_owned(), value.value().to_owned()));
        }
    }
    Ok(())
}

/// Fills a new file; says with how many workloads.
fn begin_again(database: &Database, saved: &[Entries; 3]) -> Result<usize, Error> {
    let write = database.begin_write()?;
    for (table, entries) in SAVED.into_iter().zip(saved) {
        let mut table = write.open_table(table)?;
        for (key, value) in entries {
            table.insert(key.as_str(), value.as_slice())?;
        }
    }
    ended::open(&write)?;
    tokens::open(&write)?;
    tokens::lose(&write, clock::unix_seconds())?;
    write.commit()?;
    Ok(saved.first().map_or(0, Vec::len))
}

#[cfg(test)]
mod tests {
    use nex_process::ProcessId;

    use super::super::{BusRecord, Journal};
    use super::*;

    fn journal(path: &Path) -> Vec<u8> {
        let journal = Journal::open(path).unwrap();
        journal.put_bus(&BusRecord { process: ProcessId::own().unwrap(), url: "tls://127.0.0.1:4000".into() }).unwrap();
        for number in 0..200 {
            journal.put(WORKLOADS, &format!("workload-{number}"), &"x".repeat(500)).unwrap();
        }
        drop(journal);
        fs::read(path).unwrap()
    }

    #[test]
    fn what_is_no_journal_is_kept_aside_and_a_new_one_begins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        let whole = journal(&path);
        let half = whole[..whole.len() / 2].to_vec();
        for nonsense in [b"nonsense".to_vec(), vec![0; 8192], half, [&[0; 4096], &whole[4096..]].concat()] {
            fs::write(&path, &nonsense).unwrap();
            let journal = Journal::open(&path).unwrap();
            let damage = journal.damage().unwrap();
            assert_eq!(fs::read(&damage.kept).unwrap(), nonsense);
            journal.put(WORKLOADS, "new", &1).unwrap();
            drop(journal);
            assert!(Journal::open(&path).unwrap().damage().is_none(), "the new one is whole");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn wherever_it_is_damaged_a_journal_opens_and_takes_entries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        let whole = journal(&path);
        let (mut damaged, mut saved) = (0, 0);
        for page in 0..whole.len() / 4096 {
            let mut bytes = whole.clone();
            bytes[page * 4096..][..4096].fill(0xa5);
            fs::write(&path, &bytes).unwrap();
            let journal = Journal::open(&path).unwrap();
            journal.put(WORKLOADS, "new", &1).unwrap();
            if let Some(damage) = journal.damage() {
                damaged += 1;
                saved += usize::from(damage.workloads > 0);
            }
        }
        assert!(damaged > 0 && saved > 0, "{damaged} damaged, {saved} saved in part");
    }

    #[test]
    fn a_file_that_cannot_be_had_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        let first = Journal::open(&path).unwrap();
        assert!(Journal::open(&path).is_err(), "another one has it");
        drop(first);
        assert!(Journal::open(dir.path()).is_err(), "a directory");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
