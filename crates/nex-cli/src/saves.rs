//! Tells when a file was saved: changed, replaced by another, or gone and back.
//!
//! The kernel tells of changes in its directory, so that an editor that renames over the file is heard as well; what counts is what the
//! file then is. Where the kernel tells nothing (network file systems, a directory that was removed) it is looked at now and then.

use std::fs::Metadata;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout};

/// How long a file has to stay as it is before it counts as saved: whatever writes it may not be done.
const QUIET: Duration = Duration::from_millis(30);
/// The same where it is gone or empty, as it is for a moment when some editors save.
const UNSURE: Duration = Duration::from_millis(300);
/// How often it is looked at though nothing is told.
const LOOK: Duration = Duration::from_secs(1);

/// What became of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Save {
    /// It is another one since then.
    Saved(Instant),
    /// It is not there any more.
    Gone,
}

/// Waits for saves of one file.
#[derive(Debug)]
pub(crate) struct Saves {
    path: PathBuf,
    seen: Option<Stamp>,
    /// It is another one, and may be written still.
    changing: Option<Changing>,
    /// The directories whose changes are told.
    directories: Vec<PathBuf>,
    /// What tells them; where the kernel does not, the file is looked at only.
    changes: Option<Changes>,
}

/// Tells that something has happened in directories.
#[derive(Debug)]
struct Changes(AsyncFd<OwnedFd>);

/// A change that is not over yet.
#[derive(Debug, Clone, Copy)]
struct Changing {
    found: Option<Stamp>,
    /// When it was noticed.
    began: Instant,
    /// When it was last another one.
    since: Instant,
}

/// By what one state of a file is told from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
}

impl Saves {
    /// Saves of this file from now on. It need not be there.
    pub(crate) fn of(path: &Path) -> Self {
        let directories = directories(path);
        let changes = Changes::of(&directories);
        Self { path: path.to_owned(), seen: Stamp::of(path), changing: None, directories, changes }
    }

    /// Waits until the file is another one than when this returned last, and has stayed so for a moment. Saves that come in quick
    /// succession are one. Cancel-safe: called again, it goes on where it was.
    pub(crate) async fn next(&mut self) -> Save {
        loop {
            let (found, now) = (Stamp::of(&self.path), Instant::now());
            match &mut self.changing {
                None if found == self.seen => drop(timeout(LOOK, self.change()).await),
                None => self.changing = Some(Changing { found, began: now, since: now }),
                Some(changing) if changing.found != found => (changing.found, changing.since) = (found, now),
                Some(Changing { began, since, .. }) => {
                    let patience = if found.is_some_and(|stamp| stamp.bytes > 0) { QUIET } else { UNSURE };
                    match patience.saturating_sub(since.elapsed()) {
                        Duration::ZERO => {
                            let began = *began;
                            if let Some(save) = self.settled(found, began) {
                                return save;
                            }
                        }
                        left => sleep(left.min(QUIET)).await,
                    }
                }
            }
        }
    }

    /// The file stays as it was found. Nothing if it is again what it was.
    fn settled(&mut self, found: Option<Stamp>, began: Instant) -> Option<Save> {
        self.changing = None;
        let before = std::mem::replace(&mut self.seen, found);
        if before == found {
            return None;
        }
        if found.is_none() {
            return Some(Save::Gone);
        }
        // Its directory may be another one, too.
        let directories = directories(&self.path);
        if before.is_none() || directories != self.directories {
            self.changes = Changes::of(&directories);
            self.directories = directories;
        }
        Some(Save::Saved(began))
    }

    async fn change(&self) {
        let told = match &self.changes {
            Some(changes) => changes.next().await,
            None => pending().await,
        };
        if told.is_err() {
            pending::<()>().await;
        }
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().filter(Metadata::is_file).map(|metadata| Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Where a file is, and where a link of its name leads to.
fn directories(path: &Path) -> Vec<PathBuf> {
    let directory = |file: &Path| file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let target = path.canonicalize().ok().map(|target| directory(&target));
    std::iter::once(directory(path)).chain(target).collect()
}

impl Changes {
    /// Has the kernel tell of changes in these from now on.
    fn of(directories: &[PathBuf]) -> Option<Self> {
        let untold = |error: &dyn std::fmt::Display| tracing::debug!(%error, "changes of files are not told");
        let kernel = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).inspect_err(|error| untold(error)).ok()?;
        let wanted = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        for directory in directories {
            kernel.add_watch(directory, wanted).inspect_err(|error| untold(error)).ok();
        }
        register(kernel.into()).inspect_err(|error| untold(error)).ok().map(Self)
    }

    /// Waits until something has happened. What it was does not matter. Cancel-safe.
    async fn next(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        // Larger than any one event, whose name has 255 bytes at most.
        let mut events = [0; 4096];
        while nix::unistd::read(&self.0, &mut events).is_ok_and(|bytes| bytes > 0) {}
        ready.clear_ready();
        Ok(())
    }
}

#[expect(deprecated, reason = "an OwnedFd stays open as long as it is registered, which is all the new unsafe one asks")]
fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Longest wait for what must happen.
    const TIMEOUT: Duration = Duration::from_secs(20);

    async fn next(saves: &mut Saves) -> Save {
        timeout(TIMEOUT, saves.next()).await.expect("it is noticed")
    }

    #[tokio::test]
    async fn a_write_a_rename_and_a_return_are_saves() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f.js");
        fs::write(&path, "one").unwrap();
        let mut saves = Saves::of(&path);
        fs::write(&path, "two").unwrap();
        assert!(matches!(next(&mut saves).await, Save::Saved(_)));
        fs::write(path.with_extension("tmp"), "three").unwrap();
        fs::rename(path.with_extension("tmp"), &path).unwrap();
        assert!(matches!(next(&mut saves).await, Save::Saved(_)));
        fs::remove_file(&path).unwrap();
        assert_eq!(next(&mut saves).await, Save::Gone);
        fs::write(&path, "four").unwrap();
        assert!(matches!(next(&mut saves).await, Save::Saved(_)));
    }

    #[tokio::test]
    async fn a_directory_that_was_made_anew_is_watched_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/f.js");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "one").unwrap();
        let mut saves = Saves::of(&path);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert_eq!(next(&mut saves).await, Save::Gone);
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "two").unwrap();
        assert!(matches!(next(&mut saves).await, Save::Saved(_)));
        fs::write(&path, "three").unwrap();
        assert!(matches!(next(&mut saves).await, Save::Saved(_)));
    }

    #[tokio::test]
    async fn whoever_does_something_else_meanwhile_hears_of_a_save_all_the_same() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut saves = Saves::of(file.path());
        fs::write(file.path(), "one").unwrap();
        let often = async {
            loop {
                tokio::select! {
                    save = saves.next() => return save,
                    () = sleep(Duration::from_millis(3)) => {}
                }
            }
        };
        assert!(matches!(timeout(TIMEOUT, often).await, Ok(Save::Saved(_))));
    }

    #[tokio::test]
    async fn what_a_link_leads_to_is_watched_and_a_burst_is_one_save() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("real")).unwrap();
        let (path, target) = (directory.path().join("f.js"), directory.path().join("real/f.js"));
        fs::write(&target, "one").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let mut saves = Saves::of(&path);
        for number in 0..50 {
            fs::write(&target, "x".repeat(number + 10)).unwrap();
        }
        assert!(matches!(next(&mut saves).await, Save::Saved(_)));
        assert_eq!(saves.seen, Stamp::of(&path));
        assert_eq!(fs::metadata(&path).unwrap().len(), 59);
    }
}
