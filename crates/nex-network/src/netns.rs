//! Guests' named network namespaces, and threads that run inside them.
//!
//! A thread that entered a namespace ends there; the runtime's threads never enter one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::oneshot;

use crate::error::NetworkError;

/// Where `ip netns` looks, so that an operator sees guests' namespaces with the usual tools.
const DIR: &str = "/run/netns";

/// The file of a guest's namespace.
pub(crate) fn path(owner: &str, id: &str) -> PathBuf {
    Path::new(DIR).join(format!("{}{id}", prefix(owner)))
}

fn prefix(owner: &str) -> String {
    format!("nex-{owner}-")
}

/// The ids of all guests for which this owner has a namespace.
pub(crate) fn ids(owner: &str) -> Vec<String> {
    let names = fs::read_dir(DIR).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.strip_prefix(&prefix(owner)).map(str::to_owned)).collect()
}

/// Makes a namespace with a name.
pub(crate) async fn create(path: &Path) -> Result<(), NetworkError> {
    let refused = |source| NetworkError::File { action: "make the network namespace", path: path.to_owned(), source };
    let at = path.to_owned();
    thread(move || {
        fs::create_dir_all(DIR)?;
        OpenOptions::new().write(true).create_new(true).mode(0o444).open(&at)?;
        let made = unshare(CloneFlags::CLONE_NEWNET)
            .and_then(|()| mount(Some("/proc/thread-self/ns/net"), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>));
        if made.is_err() {
            let _unused = fs::remove_file(&at);
            return made.map_err(io::Error::from);
        }
        // Nothing in the guest's namespace may announce itself by IPv6. Kernels without IPv6 are fine.
        for devices in ["all", "default"] {
            let _no_ipv6 = fs::write(format!("/proc/sys/net/ipv6/conf/{devices}/disable_ipv6"), "1");
        }
        Ok(())
    })
    .await
    .map_err(refused)
}

/// Removes a namespace's name, and with its last user the namespace. One that is gone already is fine.
pub(crate) fn remove(path: &Path) -> Result<(), NetworkError> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // Absent, or a plain file that a crash left before the mount.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
        Err(errno) => {
            return Err(NetworkError::File {
                action: "unmount the network namespace",
                path: path.to_owned(),
                source: errno.into(),
            });
        }
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(NetworkError::File { action: "remove the network namespace", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Runs a function inside a namespace, on a thread of its own.
pub(crate) async fn run_in<T, F>(path: &Path, function: F) -> Result<T, NetworkError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, NetworkError> + Send + 'static,
{
    let refused = |source| NetworkError::File { action: "enter the network namespace", path: path.to_owned(), source };
    let at = path.to_owned();
    let result = thread(move || {
        setns(File::open(&at)?, CloneFlags::CLONE_NEWNET)?;
        Ok(function())
    });
    result.await.map_err(refused)?
}

async fn thread<T, F>(function: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    let (report, result) = oneshot::channel();
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        let _cancelled = report.send(function());
    })?;
    result.await.unwrap_or_else(|_panicked| Err(io::Error::other("the thread in the namespace panicked")))
}
