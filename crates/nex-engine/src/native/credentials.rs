//! Credentials for NATS that a service was given: written to a file that only it can read, whose path it finds as `NATS_CREDS`.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nex_protocol::seal::NATS_CREDS;

use crate::error::StartError;

/// The variable that clients of NATS read.
const VARIABLE: &str = "NATS_CREDS";
/// Name of the file.
const FILE: &str = ".nats.creds";

/// Takes credentials out of an environment and puts them where the service finds them: in the first of these directories that takes
/// files.
pub(super) fn place(environment: &mut BTreeMap<String, String>, directories: &[PathBuf]) -> Result<(), StartError> {
    let Some(text) = environment.remove(NATS_CREDS) else { return Ok(()) };
    let mut failure = std::io::ErrorKind::NotFound.into();
    for directory in directories {
        match write(directory, &text) {
            Ok(path) => {
                environment.insert(VARIABLE.to_owned(), path.display().to_string());
                return Ok(());
            }
            Err(error) => failure = error,
        }
    }
    Err(StartError::host("keep the service's credentials", failure))
}

/// A new file each time: what lies there under this name is taken away, and no link is followed.
fn write(directory: &Path, text: &str) -> std::io::Result<PathBuf> {
    let path = directory.join(FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path)?;
    file.write_all(text.as_bytes())?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn they_are_in_a_file_that_only_the_service_reads_and_in_no_variable() {
        let directory = tempfile::tempdir().unwrap();
        let mut environment = BTreeMap::from([(NATS_CREDS.to_owned(), "jwt and seed".to_owned())]);
        let target = directory.path().join("target");
        fs::write(&target, "untouched").unwrap();
        symlink(&target, directory.path().join(FILE)).unwrap();
        place(&mut environment, &["/proc/none".into(), directory.path().to_owned()]).unwrap();
        assert_eq!(environment.len(), 1);
        let path = PathBuf::from(&environment[VARIABLE]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "jwt and seed");
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
    }

    #[test]
    fn without_credentials_nothing_is_written_and_without_a_place_it_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let mut environment = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
        place(&mut environment, &[directory.path().to_owned()]).unwrap();
        assert!(environment.len() == 1 && fs::read_dir(directory.path()).unwrap().count() == 0);
        environment.insert(NATS_CREDS.to_owned(), "x".to_owned());
        let error = place(&mut environment, &["/proc/none".into()]).unwrap_err();
        assert!(error.to_string().contains("keep the service's credentials"), "{error}");
    }
}
