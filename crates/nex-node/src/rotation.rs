//! New values of secrets, for what runs already: functions, and services that want it, are started anew with them; services that have them
//! in files get new files. Credentials that the node makes for services are renewed the same way.
//!
//! A node hears of a new value on the subject of the bucket, which takes a permission of its own; without that, and for what was missed, it
//! looks now and then. What it hears is a hint only: the record is read from the bucket, verified and opened before anything is started.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Client;
use futures::StreamExt as _;
use futures::stream;
use nex_process::{Deadline, TaskScope};
use nex_protocol::agent::RejectCode;
use nex_protocol::envelope::chain;
use nex_protocol::id::Namespace;
use nex_protocol::secret::{self, Place};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::agents::InstanceError;
use crate::clock;
use crate::workload::Workload;
use crate::workload::files::Anew;
use crate::workload::launch_error::LaunchError;

/// How soon the secrets of a namespace are listened to that had no workloads.
const TICK: Duration = Duration::from_secs(2);
/// Time in which changes that come together become one.
const GATHER: Duration = Duration::from_millis(200);
/// How often secrets are looked at that nobody told of.
const LOOK: Duration = Duration::from_secs(60);
/// Longest time to read the secrets of a workload.
const READ: Duration = Duration::from_secs(10);
/// Seconds until credentials are made once more that could not be handed over.
const RETRY_SECONDS: i64 = 60;
/// Workloads that are started anew at once.
const MAX_CONCURRENT: usize = 4;
/// Most subjects that are remembered; of more than these, all secrets are looked at.
const MAX_TOLD: usize = 1_024;

/// Starts workloads anew whose secrets have changed, until it is dropped.
pub(crate) async fn run(admission: Arc<Admission>) {
    let mut subscriptions = Subscriptions::new(admission.drivers.launcher.secrets.nats.clone());
    let mut looked = Instant::now();
    loop {
        let followers = || admission.registry.all().into_iter().filter(|workload| !workload.spec.followed_secrets().is_empty());
        subscriptions.listen_to(followers().map(|workload| workload.spec.namespace.clone()).collect()).await;
        let told = subscriptions.told().await;
        let looks = told.is_all || looked.elapsed() >= LOOK;
        if looks {
            looked = Instant::now();
        }
        let concerned = followers().filter(|workload| looks || told.concerns(workload));
        stream::iter(concerned).for_each_concurrent(MAX_CONCURRENT, |workload| Box::pin(follow(&admission, workload))).await;
        if admission.drivers.launcher.service_users.is_some() {
            let now = clock::unix_seconds();
            let due = admission.registry.all().into_iter().filter(|workload| workload.spec.renewal.is_due(now));
            let services = due.filter(|workload| !workload.spec.kind.is_function());
            stream::iter(services)
                .for_each_concurrent(MAX_CONCURRENT, |workload| Box::pin(renew_credentials(&admission, workload)))
                .await;
        }
    }
}

/// Starts one anew, if there is something new for it.
async fn follow(admission: &Admission, workload: Arc<Workload>) {
    let spec = &workload.spec;
    match Box::pin(admission.drivers.launcher.secrets.has_changed(spec, Deadline::after(READ))).await {
        Ok(Some(false)) => {}
        // What a process of an older version started may have an old one; a service would not want a new start for that alone.
        Ok(None) if !spec.kind.is_function() && spec.restarts_for_secrets() => {}
        Ok(Some(true) | None) if !spec.restarts_for_secrets() => replace_files(admission, &workload).await,
        Ok(Some(true) | None) => {
            tracing::info!(workload_id = %spec.id, name = %spec.name, "a secret has a new value: the workload is started anew with it");
            workload.renew().await;
        }
        Err(failure) => {
            let why = chain(&failure);
            tracing::debug!(workload_id = %spec.id, name = %spec.name, why, "the workload keeps the secrets that it has");
        }
    }
}

/// Gives a service its secrets anew that it has in files.
async fn replace_files(admission: &Admission, workload: &Workload) {
    let (spec, launcher) = (&workload.spec, &admission.drivers.launcher);
    spec.secrets.owe(true);
    match Box::pin(launcher.renew_files(spec, &workload.present, Anew::Secrets, Deadline::after(READ))).await {
        Ok(is_done) => {
            spec.secrets.owe(false);
            if is_done {
                tracing::info!(workload_id = %spec.id, name = %spec.name, "a secret has a new value: the workload has it in its files");
            }
        }
        Err(failure) => {
            let why = chain(&failure);
            tracing::warn!(workload_id = %spec.id, name = %spec.name, why, "the workload keeps the files that it has; tried again in a minute");
        }
    }
}

/// Gives a service the credentials that the node makes for it anew.
async fn renew_credentials(admission: &Admission, workload: Arc<Workload>) {
    let (spec, launcher) = (&workload.spec, &admission.drivers.launcher);
    match Box::pin(launcher.renew_files(spec, &workload.present, Anew::Credentials, Deadline::after(READ))).await {
        Ok(_) => tracing::debug!(workload_id = %spec.id, name = %spec.name, "the workload's credentials were looked at"),
        // An agent of an earlier process: what it was started without, or does not know how to do, it will not have later.
        Err(LaunchError::Agent(InstanceError::Rejected { code, message })) if code != RejectCode::Absent => {
            spec.renewal.never();
            tracing::warn!(workload_id = %spec.id, name = %spec.name, why = message, "the workload has no new credentials until it is started again");
        }
        Err(failure) => {
            spec.renewal.at(clock::unix_seconds().saturating_add(RETRY_SECONDS));
            let why = chain(&failure);
            tracing::warn!(workload_id = %spec.id, name = %spec.name, why, "the workload's credentials are not renewed yet; tried again in a minute");
        }
    }
}

/// What was heard since the last time.
#[derive(Debug, Default)]
struct Told {
    subjects: BTreeSet<String>,
    /// Whether that is not all.
    is_all: bool,
}

impl Told {
    fn concerns(&self, workload: &Workload) -> bool {
        let spec = &workload.spec;
        let place = |name| Place { namespace: &spec.namespace, issuer: &spec.claims.iss, name };
        !self.subjects.is_empty() && spec.followed_secrets().iter().any(|name| self.subjects.contains(&place(name).subject()))
    }
}

/// The subscriptions. Each has a task that keeps subjects and drops what comes with them, so that nothing piles up while workloads start.
struct Subscriptions {
    nats: Client,
    listening: BTreeMap<Namespace, TaskScope>,
    heard: Arc<(Mutex<Told>, Notify)>,
}

impl Subscriptions {
    fn new(nats: Client) -> Self {
        Self { nats, listening: BTreeMap::new(), heard: Arc::default() }
    }

    /// Listens to the buckets of these namespaces and of no others.
    async fn listen_to(&mut self, namespaces: BTreeSet<Namespace>) {
        self.listening.retain(|namespace, _| namespaces.contains(namespace));
        for namespace in namespaces {
            if self.listening.contains_key(&namespace) {
                continue;
            }
            let Ok(mut changes) = self.nats.subscribe(format!("$KV.{}.>", secret::bucket(&namespace))).await else { continue };
            let (scope, heard) = (TaskScope::new("secrets"), Arc::clone(&self.heard));
            scope.spawn("secrets", async move {
                while let Some(change) = changes.next().await {
                    let mut told = heard.0.lock().unwrap_or_else(PoisonError::into_inner);
                    match told.subjects.len() < MAX_TOLD {
                        true => drop(told.subjects.insert(change.subject.to_string())),
                        false => told.is_all = true,
                    }
                    heard.1.notify_one();
                }
            });
            self.listening.insert(namespace, scope);
            // What changed before is looked at once.
            self.nats.flush().await.ok();
            self.heard.0.lock().unwrap_or_else(PoisonError::into_inner).is_all = true;
            self.heard.1.notify_one();
        }
    }

    /// Waits for something to be heard, but not for long.
    async fn told(&self) -> Told {
        if tokio::time::timeout(TICK, self.heard.1.notified()).await.is_ok() {
            tokio::time::sleep(GATHER).await;
        }
        std::mem::take(&mut *self.heard.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
