//! What runs without a deployer's request: workloads an earlier process of this node had, and those of `autostart`.

use std::sync::Arc;

use nex_process::Deadline;
use nex_protocol::claims::{Claims, sign};
use nex_protocol::deploy::DeployRequest;
use nex_protocol::envelope::{ErrorCode, Failure};
use nex_protocol::id::{Namespace, WorkloadId};
use nex_protocol::seal::seal;
use nkeys::{KeyPair, XKey};

use crate::artifacts::Offer;
use crate::clock;
use crate::config::{NodeConfig, RawAutostartWorkload};
use crate::control::{Order, run_workload};
use crate::journal::WorkloadRecord;
use crate::policy;
use crate::shared::Shared;

/// Starts them one after the other; a failure is logged and the next goes on.
pub async fn run(shared: Arc<Shared>, left: Vec<(WorkloadId, WorkloadRecord)>) {
    let (mut expected, mut started) = (0, 0);
    for (id, record) in left {
        expected += 1;
        let name = record.request.location.as_ref().map(ToString::to_string).unwrap_or_default();
        // Its entry stays until it runs, or cannot: another crash meanwhile loses nothing.
        match again(&shared, id.clone(), record).await {
            Ok(()) => started += 1,
            Err(failure) => {
                shared.launcher.journal.remove_workload(&id).ok();
                tracing::error!(artifact = name, error = %failure, "a workload of the last process could not be started again");
            }
        }
    }
    let issuer = KeyPair::new_account();
    for entry in &shared.config.autostart {
        expected += 1;
        match Box::pin(autostart(&shared, entry, &issuer)).await {
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

async fn again(shared: &Arc<Shared>, id: WorkloadId, record: WorkloadRecord) -> Result<(), Failure> {
    // It was admitted when it was deployed; its token is judged by the clock of that moment.
    let admitted = policy::admit(&record.request, &shared.config, &shared.identity.xkey, record.deployed_at)?;
    let room = shared.registry.reserve()?;
    // Its object may have been replaced since; what ran is in the cache.
    let earlier = Some((id, shared.launcher.artifacts.cached(&record.digest)));
    let (namespace, request) = (record.namespace, record.request);
    let by = Deadline::after(shared.launcher.deploy_timeout);
    Box::pin(run_workload(shared, Order { namespace, request, admitted, room, earlier }, by)).await.map(drop)
}

async fn autostart(shared: &Arc<Shared>, entry: &RawAutostartWorkload, issuer: &KeyPair) -> Result<String, Failure> {
    let bad = |why: String| Failure::new(ErrorCode::BadRequest, format!("autostart entry '{}': {why}", entry.name));
    let namespace: Namespace = entry.namespace.parse().map_err(|e: nex_protocol::id::InvalidId| bad(e.to_string()))?;
    let location: nex_protocol::deploy::Location =
        entry.location.parse().map_err(|e: nex_protocol::deploy::InvalidLocation| bad(e.to_string()))?;
    let by = Deadline::after(shared.launcher.deploy_timeout);
    let offer = Offer::look_up(&shared.nats, &location, entry.jsdomain.as_deref(), by).await?;
    let digest = offer.digest().ok_or_else(|| bad("the object store knows no digest of its artifact".into()))?;
    let now = clock::unix_seconds();
    let sender = XKey::new();
    let claims = Claims::to_start(&entry.name, issuer, &digest, now, 300);
    let request = DeployRequest {
        argv: Some(entry.argv.clone()),
        description: entry.description.clone(),
        r#type: Some(entry.r#type.clone()).filter(|kind| !kind.is_empty()),
        location: Some(location),
        essential: Some(entry.essential),
        workload_jwt: Some(sign(&claims, issuer).map_err(|e| bad(e.to_string()))?),
        environment: Some(seal(&entry.environment, &sender, &shared.identity.xkey.public_key()).map_err(|e| bad(e.to_string()))?),
        jsdomain: entry.jsdomain.clone(),
        sender_public_key: Some(sender.public_key()),
        trigger_subjects: Some(entry.trigger_subjects.clone()).filter(|triggers| !triggers.is_empty()),
        ..DeployRequest::default()
    };
    // The operator wrote this entry: no list of issuers keeps it out.
    let config = NodeConfig { valid_issuers: Vec::new(), ..shared.config.clone() };
    let admitted = policy::admit(&request, &config, &shared.identity.xkey, now)?;
    let room = shared.registry.reserve()?;
    Ok(Box::pin(run_workload(shared, Order { namespace, request, admitted, room, earlier: None }, by)).await?.id)
}
