//! The record of a guest's connection, used to undo it: written before anything is made, removed last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::list::List;
use crate::error::NetworkError;

/// One guest's chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) netns: PathBuf,
    pub(crate) interface: String,
    pub(crate) bin_path: Vec<PathBuf>,
    pub(crate) list: List,
    /// The result of ADD; null while it runs.
    pub(crate) result: Value,
}

/// Directory of the records.
pub(crate) fn dir(state_dir: &Path) -> PathBuf {
    state_dir.join("cni").join("guests")
}

fn path(state_dir: &Path, id: &str) -> PathBuf {
    dir(state_dir).join(format!("{id}.json"))
}

impl Record {
    /// Writes it whole or not at all.
    pub(crate) fn write(&self, state_dir: &Path) -> Result<(), NetworkError> {
        let path = path(state_dir, &self.id);
        let written = serde_json::to_vec(self).map_err(io::Error::other).and_then(|bytes| {
            fs::create_dir_all(dir(state_dir))?;
            let new = path.with_extension("new");
            fs::write(&new, bytes)?;
            fs::rename(new, &path)
        });
        written.map_err(|source| NetworkError::File { action: "write the record", path, source })
    }

    /// Reads one guest's.
    pub(crate) fn read(state_dir: &Path, id: &str) -> Option<Self> {
        serde_json::from_slice(&fs::read(path(state_dir, id)).ok()?).ok()
    }

    /// Removes the file; one that is gone already is fine.
    pub(crate) fn remove(state_dir: &Path, id: &str) -> Result<(), NetworkError> {
        let path = path(state_dir, id);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(NetworkError::File { action: "remove the record", path, source })
            }
            _ => Ok(()),
        }
    }
}

/// The ids of all guests with a record.
pub(crate) fn ids(state_dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir(state_dir)).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect()
}
