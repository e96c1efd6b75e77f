//! A deploy request after every check: nothing in it is absent by accident, nothing unbounded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nex_protocol::agent;
use nex_protocol::claims::Claims;
use nex_protocol::control::SealedSettings;
use nex_protocol::deploy::{
    CheckedPolicy, ConnectionDetails, DeployRequest, DeployedSettings, Isolation, OnSecretChange, Restart, WorkloadType,
};
use nex_protocol::id::{Namespace, SecretName, WorkloadId, WorkloadName};
use nex_protocol::seal::{self, Environment, file_variable};
use nex_protocol::subject;
use nex_protocol::trigger::DurableTrigger;
use nkeys::XKey;

use super::files::Renewal;
use super::rules::{Rules, seed_of};
use super::secrets::Wanted;
use crate::artifacts::Artifact;
use crate::quota::Charge;

/// A workload as it will run. Has no `Debug`: it holds the environment.
pub struct WorkloadSpec {
    /// Its id for as long as it lives, whatever agents come and go.
    pub id: WorkloadId,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: WorkloadName,
    /// Its type.
    pub kind: WorkloadType,
    /// What its deployer said of it.
    pub description: String,
    /// The claims that started it; their issuer may stop it.
    pub claims: Claims,
    /// Its artifact, in the cache.
    pub artifact: Artifact,
    /// Arguments.
    pub argv: Vec<String>,
    /// Its environment, opened; it leaves this process only sealed to the agent.
    pub environment: Environment,
    /// What of its environment is secrets that are read when it is started.
    pub secrets: Wanted,
    /// When it is to have other credentials than those that the node has made for it.
    pub renewal: Renewal,
    /// How it is kept.
    pub policy: CheckedPolicy,
    /// Subjects that call it.
    pub triggers: Vec<String>,
    /// Streams that call it.
    pub durable: Vec<Arc<DurableTrigger>>,
    /// Where they are subscribed, if the deployer brought a connection.
    pub trigger_connection: Option<ConnectionDetails>,
    /// The connection of its host services, if the deployer brought one.
    pub host_services: Option<ConnectionDetails>,
    /// Class of the machine it runs on; the node's standard machine if absent.
    pub machine_class: Option<String>,
    /// How far it is kept apart from others.
    pub isolation: Isolation,
    /// Bounds.
    pub limits: agent::Limits,
    /// Whom it counts for in quotas, and what.
    pub charge: Charge,
    /// The request as it came, for the journal.
    pub request: DeployRequest,
    /// When it was deployed, seconds since 1970.
    pub deployed_at: i64,
}

impl std::fmt::Debug for WorkloadSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkloadSpec")
            .field("id", &self.id)
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl WorkloadSpec {
    /// All that calls it, as it was written.
    #[must_use]
    pub fn trigger_texts(&self) -> Vec<String> {
        self.triggers.iter().cloned().chain(self.durable.iter().map(ToString::to_string)).collect()
    }

    /// Where it is asked to deal with the messages of its triggers, if it is a service.
    #[must_use]
    pub fn service_subject(&self) -> String {
        subject::service(&self.namespace, &self.name)
    }

    /// How it was deployed, for whoever sealed its environment and for nobody else; nothing where nobody did.
    #[must_use]
    pub fn sealed_settings(&self, node: &XKey) -> Option<SealedSettings> {
        let sender = self.request.sender_public_key.as_deref()?;
        let request = DeployRequest { workload_jwt: None, environment: None, ..self.request.clone() };
        let settings = DeployedSettings { request, environment: self.environment.clone() };
        let text = serde_json::to_string(&settings).unwrap_or_default();
        let sealed = seal::seal(&Environment::from([(DeployedSettings::NAME.to_owned(), text)]), node, sender).ok()?;
        Some(SealedSettings { by: node.public_key(), sealed })
    }

    /// Whether it is started anew where one of its secrets has a new value.
    #[must_use]
    pub fn restarts_for_secrets(&self) -> bool {
        self.kind.is_function() || self.policy.on_secret_change == Some(OnSecretChange::Restart)
    }

    /// The secrets whose new values make a difference while it runs: it is started anew, or those in files are replaced.
    #[must_use]
    pub fn followed_secrets(&self) -> BTreeSet<&SecretName> {
        let all = self.restarts_for_secrets();
        let secrets = self.secrets.variables().iter().filter(|(member, _)| all || file_variable(member).is_some());
        secrets.map(|(_, name)| name).collect()
    }

    /// Longest time of one call.
    #[must_use]
    pub fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.call_timeout_ms)
    }

    /// When it is started again. A function has no exit of its own: losing its agent is always a failure to mend.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let (policy, essential) = (&self.policy, self.request.essential.unwrap_or_default());
        let restart = match policy.restart {
            Some(restart) => restart,
            None => Restart::of_essential(essential || self.kind.is_function() || policy.job.is_some()),
        };
        Rules {
            restart,
            retries: policy.job.map(|job| job.retries),
            is_gated: policy.health.is_some(),
            seed: seed_of(self.id.as_str()),
        }
    }

    /// Time it has to end by itself when somebody stops it; calls that it has taken are answered.
    #[must_use]
    pub fn stop_grace(&self, usual: Duration) -> Duration {
        match self.policy.stop_grace {
            Some(own) => own,
            None if self.kind.is_function() => usual.max(self.call_timeout()),
            None => usual,
        }
    }
}
