//! Firecracker: its API over a unix socket, and its jailer.
//!
//! Without a jailer the process runs in the machine's directory. With one it runs in a chroot inside that directory, at
//! `<name of the program>/<id>/root`; the files have the same names there.

pub(crate) mod api;
mod machine;
mod requests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_process::{ChildSpec, Deadline};
use tokio::net::UnixListener;

use crate::adopted::{AdoptedMachine, Channel};
use crate::error::VmmError;
use crate::files::{Fallback, Files};
use crate::kind::VmmKind;
use crate::machine::{LeftMachine, Machine, Snapshot, Vmm};
use crate::process::{Process, ask_version, run_as};
use crate::spec::MachineSpec;
use machine::FirecrackerMachine;
use requests::Request;

/// Interval between two attempts to connect to the API's socket.
const POLL: Duration = Duration::from_millis(2);

/// Firecracker's jailer, which puts the monitor into a chroot inside the machine's directory. It needs root, a user to run as
/// ([`MachineSpec::run_as`]) and a Firecracker that is linked statically, as its releases are; limits of memory and processor
/// are left to the caller, who puts the process into a cgroup.
#[derive(Debug, Clone)]
pub struct Jailer {
    /// The program `jailer`.
    pub binary: PathBuf,
}

/// Firecracker as a monitor, version 1.12 or newer.
#[derive(Debug, Clone)]
pub struct Firecracker {
    binary: PathBuf,
    jailer: Option<Jailer>,
}

impl Firecracker {
    /// The program `firecracker` at that path, put into a jail if there is a jailer. Without one and as another user than root, it
    /// must be able to open `/dev/kvm` and `/dev/net/tun`.
    #[must_use]
    pub fn new(binary: PathBuf, jailer: Option<Jailer>) -> Self {
        Self { binary, jailer }
    }

    /// Starts a machine from files in its directory by a sequence of requests.
    async fn start(
        &self,
        spec: MachineSpec,
        from: Option<&Snapshot>,
        requests: Vec<Request>,
        by: Deadline,
    ) -> Result<Box<dyn Machine>, VmmError> {
        let files = self.files(&spec.id, &spec.dir)?;
        files.place_images(&spec, from.is_none()).await?;
        if let Some(from) = from {
            files.place(&from.memory, requests::MEMORY).await?;
            files.place(&from.state, requests::STATE).await?;
        }
        let listener = files.listen(requests::CHANNEL, spec.run_as)?;
        files.chown_to(spec.run_as)?;
        let listener = into_tokio(listener, &files)?;
        let process = Process::start(VmmKind::Firecracker, self.command(&spec)?, &spec.console)?;
        let configure = async {
            while files.connect(requests::API).await.is_err() {
                tokio::time::sleep(POLL).await;
            }
            for request in &requests {
                api::send(&files, request).await?;
            }
            Ok(())
        };
        process.begin(by, configure).await?;
        Ok(Box::new(FirecrackerMachine::new(process, files, listener, spec)))
    }

    fn files(&self, id: &str, dir: &Path) -> Result<Files, VmmError> {
        if self.jailer.is_none() {
            return Files::open(dir, Fallback::Symlink);
        }
        let root = dir.join(self.name()?).join(id).join("root");
        std::fs::create_dir_all(&root).map_err(VmmError::file("make", &root))?;
        Files::open(&root, Fallback::Copy)
    }

    fn name(&self) -> Result<&Path, VmmError> {
        let no_name = || VmmError::Invalid(format!("{} is no program", self.binary.display()));
        self.binary.file_name().map(Path::new).ok_or_else(no_name)
    }

    fn command(&self, spec: &MachineSpec) -> Result<ChildSpec, VmmError> {
        let own: [OsString; 6] = ["--api-sock", requests::API, "--id", &spec.id, "--level", "Warn"].map(Into::into);
        let Some(jailer) = &self.jailer else {
            let mut command = ChildSpec::new(&self.binary).args(own).current_dir(&spec.dir).no_new_privs();
            if let Some(netns) = &spec.netns {
                command = command.netns(netns);
            }
            if let Some(user) = spec.run_as {
                command = run_as(command, user);
            }
            return Ok(command);
        };
        let user = spec.run_as.ok_or_else(|| VmmError::Invalid("a jailed machine needs a user to run as".to_owned()))?;
        // The jailer passes the id to Firecracker itself.
        let [socket, name, _, _, level, warn] = own;
        let mut args: Vec<OsString> = jailer_args(spec, user, &self.binary);
        args.extend(["--".into(), socket, name, level, warn]);
        Ok(ChildSpec::new(&jailer.binary).args(args).current_dir(&spec.dir).no_new_privs())
    }

    async fn boot_machine(&self, spec: MachineSpec, by: Deadline) -> Result<Box<dyn Machine>, VmmError> {
        check(&spec)?;
        let requests = requests::boot(&spec);
        self.start(spec, None, requests, by).await
    }

    async fn restore_machine(&self, spec: MachineSpec, from: &Snapshot, by: Deadline) -> Result<Box<dyn Machine>, VmmError> {
        check(&spec)?;
        from.check(VmmKind::Firecracker, &spec)?;
        let requests = requests::restore(&spec);
        self.start(spec, Some(from), requests, by).await
    }
}

fn into_tokio(listener: std::os::unix::net::UnixListener, files: &Files) -> Result<UnixListener, VmmError> {
    let listener = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
    listener.map_err(VmmError::file("listen on", &files.path(requests::CHANNEL)))
}

fn jailer_args(spec: &MachineSpec, user: u32, binary: &Path) -> Vec<OsString> {
    let user = OsString::from(user.to_string());
    let mut args: Vec<OsString> = vec!["--id".into(), (&spec.id).into(), "--exec-file".into(), binary.into()];
    args.extend(["--uid".into(), user.clone(), "--gid".into(), user]);
    args.extend(["--chroot-base-dir".into(), (&spec.dir).into()]);
    if let Some(netns) = &spec.netns {
        args.extend(["--netns".into(), netns.into()]);
    }
    args
}

fn check(spec: &MachineSpec) -> Result<(), VmmError> {
    spec.check()?;
    if spec.metadata && spec.nic.is_none() {
        return Err(VmmError::Invalid("a metadata service needs a network interface".to_owned()));
    }
    Ok(())
}

impl Vmm for Firecracker {
    fn kind(&self) -> VmmKind {
        VmmKind::Firecracker
    }

    fn version(&self, by: Deadline) -> BoxFuture<'_, Result<String, VmmError>> {
        ask_version(VmmKind::Firecracker, &self.binary, "Firecracker v", by).boxed()
    }

    fn boot(&self, spec: MachineSpec, by: Deadline) -> BoxFuture<'_, Result<Box<dyn Machine>, VmmError>> {
        self.boot_machine(spec, by).boxed()
    }

    fn restore<'a>(
        &'a self,
        spec: MachineSpec,
        from: &'a Snapshot,
        by: Deadline,
    ) -> BoxFuture<'a, Result<Box<dyn Machine>, VmmError>> {
        self.restore_machine(spec, from, by).boxed()
    }

    fn adopt(&self, left: LeftMachine<'_>) -> Result<Box<dyn Machine>, VmmError> {
        let files = self.files(left.id, left.dir)?;
        let listener = into_tokio(files.listen_again(requests::CHANNEL, left.run_as)?, &files)?;
        let process = Process::adopt(VmmKind::Firecracker, left.process);
        Ok(Box::new(AdoptedMachine::new(process, files, Channel::Accept(listener))))
    }
}

#[cfg(test)]
mod tests;
