//! New texts of the files of a service that runs, for which it is not started anew: its secrets that are files, and the credentials that the
//! node has made for it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nex_process::Deadline;
use nex_protocol::agent::Update;
use nex_protocol::deploy::OnSecretChange;
use nex_protocol::id::InstanceId;
use nex_protocol::seal::{Environment, NATS_CREDS, file_variable, seal};
use nkeys::XKey;

use super::launch::Launcher;
use super::launch_error::LaunchError;
use super::spec::WorkloadSpec;
use crate::agents::{Agent, Instance};

/// An instance, and its agent, which ends with its last owner.
type OnAgent = (Weak<Agent>, InstanceId);

/// The instance of a workload that runs at this moment, whichever that is. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Present(Arc<Mutex<Option<OnAgent>>>);

impl Present {
    /// The workload has an instance.
    pub(super) fn watch(&self, instance: &Instance) {
        let present = (Arc::downgrade(instance.agent()), instance.id().clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(present);
    }

    /// It, and its agent, if that is still there.
    fn now(&self) -> Option<(Arc<Agent>, InstanceId)> {
        let present = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (agent, instance) = present.as_ref()?;
        Some((agent.upgrade()?, instance.clone()))
    }
}

/// When a service is to have new credentials: those that this process has made are known to it, those of an earlier one are not.
#[derive(Debug, Default)]
pub struct Renewal(AtomicI64);

impl Renewal {
    /// At this time, seconds since 1970.
    pub(crate) fn at(&self, time: i64) {
        self.0.store(time, Ordering::Relaxed);
    }

    /// Never: nobody has made any for it.
    pub(crate) fn never(&self) {
        self.at(i64::MAX);
    }

    /// Whether that time has come.
    pub(crate) fn is_due(&self, now: i64) -> bool {
        self.0.load(Ordering::Relaxed) <= now
    }
}

/// Which of its files a service is to have anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anew {
    /// All that are secrets.
    Secrets,
    /// Its credentials.
    Credentials,
}

impl Launcher {
    /// Gives a service that runs its files as they are now, and tells it, if it wants that. Returns whether it has any, and runs: who starts
    /// later has them anyway.
    ///
    /// # Errors
    /// [`LaunchError`]; it keeps what it has then.
    pub(crate) async fn renew_files(
        &self,
        spec: &WorkloadSpec,
        present: &Present,
        what: Anew,
        by: Deadline,
    ) -> Result<bool, LaunchError> {
        let Some((agent, instance)) = present.now() else { return Ok(false) };
        let environment = self.environment(spec, by).await?;
        let is_wanted = |member: &str| match what {
            Anew::Secrets => spec.secrets.has(member) && file_variable(member).is_some(),
            Anew::Credentials => member == NATS_CREDS && !spec.secrets.has(member),
        };
        let files: Environment = environment.into_iter().filter(|(member, _)| is_wanted(member)).collect();
        if files.is_empty() {
            return Ok(false);
        }
        let sender = XKey::new();
        let signal = match spec.policy.on_secret_change {
            Some(OnSecretChange::Signal(signal)) => Some(signal),
            Some(OnSecretChange::None | OnSecretChange::Restart) | None => None,
        };
        let files = seal(&files, &sender, &agent.handshake().xkey)?;
        agent.update(&instance, &Update { files, sealed_by: sender.public_key(), signal }, by).await?;
        Ok(true)
    }
}
