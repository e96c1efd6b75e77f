//! Members of a service's environment that are files: written where only the service can read them, each at a path that the service finds in
//! a variable, and replaced while it runs.
//!
//! A file is replaced as a whole, by a rename: who reads it meanwhile has the old one or the new one.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nex_protocol::seal::{NATS_CREDS, file_variable};

use crate::error::StartError;

/// Name of the file with credentials for NATS, and what the names of others begin with.
const CREDENTIALS: &str = ".nats.creds";
const OTHERS: &str = ".secret.";
/// What the name of a file ends with that is being written.
const UNFINISHED: &str = ".new";

/// The files of a service, by the members that they were.
#[derive(Debug, Default)]
pub(super) struct Files(Mutex<BTreeMap<String, PathBuf>>);

/// Takes files out of an environment and puts them where the service finds them: in the first of these directories that takes files.
pub(super) fn place(environment: &mut BTreeMap<String, String>, directories: &[PathBuf]) -> Result<Files, StartError> {
    let failed = |error| StartError::host("keep the service's files", error);
    let given: Vec<_> = environment.extract_if(.., |member, _| file_variable(member).is_some()).collect();
    let mut placed = BTreeMap::new();
    for (member, text) in given {
        let text = whole(&member, text);
        let variable = file_variable(&member).unwrap_or_default();
        let path = write_to_one(directories, &file_name(&member).map_err(failed)?, &text).map_err(failed)?;
        environment.insert(variable.to_owned(), path.display().to_string());
        placed.insert(member, path);
    }
    Ok(Files(Mutex::new(placed)))
}

impl Files {
    /// Replaces files that were placed; nothing is replaced where one of them was not.
    pub(super) fn replace(&self, new: &BTreeMap<String, String>) -> io::Result<()> {
        let placed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            |member: &String| placed.get(member).ok_or_else(|| io::Error::other("it was started without one of these files"));
        let paths = new.keys().map(known).collect::<io::Result<Vec<_>>>()?;
        paths.into_iter().zip(new).try_for_each(|(path, (member, text))| write(path, &whole(member, text.clone())))
    }
}

/// The text of a file. That of credentials ends with a line break: some clients of NATS read none without it, and a value that was read from a
/// file has lost it.
fn whole(member: &str, mut text: String) -> String {
    if member == NATS_CREDS && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn file_name(member: &str) -> io::Result<String> {
    let variable = file_variable(member).unwrap_or_default();
    let is_plain =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    match member {
        NATS_CREDS => Ok(CREDENTIALS.to_owned()),
        _ if is_plain(variable) => Ok(format!("{OTHERS}{variable}")),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the name of a variable has letters, digits, '_', '-' and '.'")),
    }
}

fn write_to_one(directories: &[PathBuf], name: &str, text: &str) -> io::Result<PathBuf> {
    let mut failure = io::ErrorKind::NotFound.into();
    for directory in directories {
        let path = directory.join(name);
        match write(&path, text) {
            Ok(()) => return Ok(path),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A new file each time, which takes the place of what lies there: no link is followed.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&unfinished)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&unfinished, path));
    written.inspect_err(|_error| drop(fs::remove_file(&unfinished)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn environment(members: &[(&str, &str)]) -> BTreeMap<String, String> {
        members.iter().map(|(member, text)| ((*member).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn they_are_files_that_only_the_service_reads_and_in_no_variable() {
        let directory = tempfile::tempdir().unwrap();
        let mut given = environment(&[(NATS_CREDS, "jwt and seed"), ("nex:file:DB_FILE", "s3cret"), ("A", "b")]);
        let target = directory.path().join("target");
        fs::write(&target, "untouched").unwrap();
        symlink(&target, directory.path().join(CREDENTIALS)).unwrap();
        place(&mut given, &["/proc/none".into(), directory.path().to_owned()]).unwrap();
        assert_eq!(given.keys().collect::<Vec<_>>(), ["A", "DB_FILE", "NATS_CREDS"]);
        for (variable, text) in [("NATS_CREDS", "jwt and seed\n"), ("DB_FILE", "s3cret")] {
            let path = PathBuf::from(&given[variable]);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
    }

    #[test]
    fn one_is_replaced_as_a_whole_and_only_where_it_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let mut given = environment(&[("nex:file:A", "first"), ("nex:file:B", "other")]);
        let files = place(&mut given, &[directory.path().to_owned()]).unwrap();
        // Whoever has it open reads on what he opened.
        let mut open = fs::File::open(&given["A"]).unwrap();
        let target = directory.path().join("target");
        fs::write(&target, "untouched").unwrap();
        symlink(&target, format!("{}{UNFINISHED}", given["A"])).unwrap();
        files.replace(&environment(&[("nex:file:A", "second")])).unwrap();
        assert_eq!(fs::read_to_string(&given["A"]).unwrap(), "second");
        assert_eq!(io::read_to_string(&mut open).unwrap(), "first");
        assert_eq!(fs::read_to_string(&given["B"]).unwrap(), "other");
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
        files.replace(&environment(&[("nex:file:A", "third"), (NATS_CREDS, "x")])).unwrap_err();
        assert_eq!(fs::read_to_string(&given["A"]).unwrap(), "second");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "nothing unfinished is left");
    }

    #[test]
    fn without_files_nothing_is_written_and_without_a_place_or_a_name_it_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let mut given = environment(&[("A", "b")]);
        place(&mut given, &[directory.path().to_owned()]).unwrap();
        assert!(given.len() == 1 && fs::read_dir(directory.path()).unwrap().count() == 0);
        for (member, place_at) in
            [(NATS_CREDS, Path::new("/proc/none")), ("nex:file:../x", directory.path()), ("nex:file:", directory.path())]
        {
            let error = place(&mut environment(&[(member, "x")]), &[place_at.to_owned()]).unwrap_err();
            assert!(error.to_string().contains("keep the service's files"), "{error}");
        }
    }
}
