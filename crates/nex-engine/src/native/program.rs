//! A program to execute: which file, and what it is given.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::{Child, Command};

use super::environment;
use crate::error::StartError;
use crate::launch::Launch;

/// What is executed.
#[derive(Debug)]
pub(super) struct Program {
    /// Its file.
    pub(super) path: PathBuf,
    /// What it is told to be called.
    pub(super) name: String,
    pub(super) argv: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) directory: PathBuf,
    /// By which signal it is asked to end, where it says so.
    pub(super) stop_signal: Option<Signal>,
}

impl Program {
    /// An artifact that is a program itself.
    pub(super) fn of_artifact(launch: &Launch) -> Result<Self, StartError> {
        let directory = std::env::current_dir().unwrap_or_else(|_error| PathBuf::from("/"));
        let environment = environment::build(launch, &directory)?;
        let (path, name, argv) = (launch.artifact.clone(), launch.name.clone(), launch.argv.clone());
        Ok(Self { path, name, argv, environment, directory, stop_signal: None })
    }

    /// Executes it.
    pub(super) async fn spawn(&self) -> Result<Child, StartError> {
        let mut command = Command::new(&self.path);
        command.arg0(&self.name).args(&self.argv).env_clear().envs(&self.environment).current_dir(&self.directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut attempts = 0;
        loop {
            match command.spawn() {
                // A child that another thread forked holds the descriptor through which the artifact was written, until it execs.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && attempts < 20 => {
                    attempts += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                result => return result.map_err(|error| StartError::host(format!("execute {}", self.path.display()), error)),
            }
        }
    }
}
