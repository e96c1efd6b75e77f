//! What runs without a deployer's request: workloads an earlier process of this node accepted, and those of `autostart`.
//!
//! Restoring is not deploying: what was accepted once comes back, whatever became of its token, its object store, or NATS. Only a
//! configuration that forbids it now keeps it away, and says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nex_process::Deadline;
use nex_protocol::claims::{Claims, sign};
use nex_protocol::deploy::{DeployRequest, InvalidLocation, Location};
use nex_protocol::id::{InvalidId, Namespace, WorkloadId};
use nex_protocol::seal::{SealError, seal};
use nkeys::{KeyPair, XKey};

use crate::admission::{Admission, AdmissionError, AdmittedDeploy, Restored};
use crate::artifacts::RemoteArtifact;
use crate::clock;
use crate::config::{NodeConfig, RawAutostartWorkload};
use crate::journal::WorkloadRecord;
use crate::leftovers::Leftover;
use crate::policy;
use crate::workload::Before;
use crate::workload::launched::LeftRunning;

/// Why an entry of `autostart` is not started.
#[derive(Debug, thiserror::Error)]
enum AutostartError {
    /// Its namespace cannot be one.
    #[error("its namespace: {0}")]
    Namespace(#[from] InvalidId),
    /// Its location cannot be one.
    #[error("its location: {0}")]
    Location(#[from] InvalidLocation),
    /// There is nothing to sign for.
    #[error("the object store knows no digest of its artifact")]
    NoDigest,
    /// Its claims cannot be signed.
    #[error("its claims cannot be signed")]
    Sign(#[from] nkeys::error::Error),
    /// Its environment cannot be sealed.
    #[error("its environment cannot be sealed: {0}")]
    Seal(#[from] SealError),
    /// It is treated like a request from then on.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
}

/// Workloads of the journal that have their room and their triggers.
pub(crate) struct Returning(Vec<(AdmittedDeploy, Restored)>);

/// Takes room and triggers for the workloads of the journal, before anybody else can: they were here first. What is not admitted is
/// logged.
#[must_use]
pub(crate) fn admit(admission: &Admission, left: Vec<Leftover>) -> Returning {
    let mut returning = Vec::new();
    for Leftover { id, record, running } in left {
        let name = record.request.location.as_ref().map(ToString::to_string).unwrap_or_default();
        match readmit(admission, id.clone(), record, running) {
            Ok(admitted) => returning.push(admitted),
            Err(failure) => tracing::error!(
                workload_id = %id, artifact = name, error = %failure,
                "a workload of the last process does not run again, because this node's configuration does not admit it any more, or \
                 another one has its triggers; it stays in the journal; next: change the configuration and start the node again"
            ),
        }
    }
    Returning(returning)
}

/// Hands the workloads of the journal to their drivers, then starts those of the configuration one after the other; a failure is logged
/// and the next goes on.
pub(crate) async fn run(admission: Arc<Admission>, Returning(returning): Returning) {
    for (deploy, restored) in returning {
        // Its driver takes it over, or tries until it runs; it leaves the journal when it ends or is stopped.
        admission.restore(deploy, restored);
    }
    let (mut expected, mut started) = (0, 0);
    let issuer = KeyPair::new_account();
    for entry in &admission.config.now().autostart {
        expected += 1;
        match Box::pin(autostart(&admission, entry, &issuer)).await {
            Ok(id) => {
                started += 1;
                tracing::info!(name = entry.name, workload_id = id, "autostarted workload");
            }
            Err(failure) => tracing::error!(name = entry.name, error = %failure, "a workload could not be autostarted"),
        }
    }
    if expected > 0 {
        tracing::info!(expected, started, "workloads started with the node");
    }
}

fn readmit(
    admission: &Admission,
    id: WorkloadId,
    record: WorkloadRecord,
    left: Option<LeftRunning>,
) -> Result<(AdmittedDeploy, Restored), AdmissionError> {
    // Its token was good when it was deployed, and is judged by the clock of that moment for ever.
    let config = admission.config.now();
    let admitted = policy::admit(&record.request, &record.namespace, &config, &admission.identity.xkey, record.deployed_at)?;
    let artifact = admission.drivers.launcher.artifacts.place(&record.digest);
    let WorkloadRecord { namespace, request, deployed_at, running, life, .. } = record;
    let before = Before { left, ran: running.is_some(), life };
    let config = admission.config.now();
    let charge = policy::charge(&config, &namespace, &request, &admitted);
    let age = Duration::from_secs(u64::try_from(clock::unix_seconds().saturating_sub(deployed_at)).unwrap_or_default());
    admission.rates.remember(&config.quotas, &charge, age, Instant::now());
    let mut reservation = admission.registry.readmit(charge);
    reservation.reserve_triggers(&namespace, &admitted.triggers.subjects)?;
    Ok((AdmittedDeploy { namespace, request, admitted, reservation }, Restored { id, deployed_at, artifact, before }))
}

async fn autostart(admission: &Admission, entry: &RawAutostartWorkload, issuer: &KeyPair) -> Result<String, AutostartError> {
    let namespace: Namespace = entry.namespace.parse()?;
    let location: Location = entry.location.parse()?;
    let by = Deadline::after(admission.drivers.timeouts.deploy);
    let offer = RemoteArtifact::look_up(&admission.drivers.launcher.nats, &location, entry.jsdomain.as_deref(), by).await;
    let offer = offer.map_err(AdmissionError::from)?;
    let digest = offer.digest().ok_or(AutostartError::NoDigest)?;
    let now = clock::unix_seconds();
    let sender = XKey::new();
    let claims = Claims::to_start(&entry.name, issuer, &digest, now, 300);
    let request = DeployRequest {
        argv: Some(entry.argv.clone()),
        description: entry.description.clone(),
        r#type: Some(entry.r#type.clone()).filter(|kind| !kind.is_empty()),
        location: Some(location),
        essential: Some(entry.essential),
        workload_jwt: Some(sign(&claims, issuer)?),
        environment: Some(seal(&entry.environment, &sender, &admission.identity.xkey.public_key())?),
        jsdomain: entry.jsdomain.clone(),
        sender_public_key: Some(sender.public_key()),
        trigger_subjects: Some(entry.trigger_subjects.clone()).filter(|triggers| !triggers.is_empty()),
        ..DeployRequest::default()
    };
    Ok(Box::pin(start(admission, namespace, request, by)).await?)
}

/// Starts what the operator wants started.
async fn start(
    admission: &Admission,
    namespace: Namespace,
    request: DeployRequest,
    by: Deadline,
) -> Result<String, AdmissionError> {
    // The operator wrote this entry: no list of issuers keeps it out.
    let config = NodeConfig { valid_issuers: Vec::new(), ..NodeConfig::clone(&admission.config.now()) };
    let admitted = policy::admit(&request, &namespace, &config, &admission.identity.xkey, clock::unix_seconds())?;
    let charge = policy::charge(&config, &namespace, &request, &admitted);
    let mut reservation = admission.registry.reserve(&config.quotas, charge, None)?;
    reservation.reserve_triggers(&namespace, &admitted.triggers.subjects)?;
    let deploy = AdmittedDeploy { namespace, request, admitted, reservation };
    let mut started = Box::pin(admission.begin(deploy, async { Ok::<_, AdmissionError>(()) }, by)).await?;
    admission.runs(&mut started).await?;
    Ok(started.response.id)
}
