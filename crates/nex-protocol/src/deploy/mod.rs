//! Bodies of DEPLOY and STOP, as 0.2.7 sends them.

mod isolation;
mod limits;
mod location;
mod placement;
pub mod policy;
mod probe;
mod workload_type;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::isolation::{Isolation, UnknownIsolation};
pub use self::limits::RequestedLimits;
pub use self::location::{InvalidLocation, Location};
pub use self::placement::{MAX_PLACES, RequestedPlacement};
pub use self::policy::{
    CheckedPolicy, InvalidPolicy, Job, JobPolicy, OnSecretChange, RequestedHealth, Restart, RunPolicy, StopSignal,
};
pub use self::probe::{HealthCheck, InvalidProbe, Probe};
pub use self::workload_type::{UnknownType, WorkloadType};
use crate::digest::Digest;
use crate::id::{WorkloadId, WorkloadName};

/// A NATS connection of the user's choice, for triggers or host services. Has no `Debug`: it carries a seed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionDetails {
    /// Server URLs, comma separated.
    pub nats_url: String,
    /// User JWT.
    pub nats_user_jwt: String,
    /// The user's seed.
    pub nats_user_seed: String,
}

impl fmt::Debug for ConnectionDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionDetails").field("nats_url", &self.nats_url).finish_non_exhaustive()
    }
}

/// Run this. Everything may be absent on the wire; what must be there is checked before any work.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployRequest {
    /// Arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// For people.
    pub description: Option<String>,
    /// `native`, `v8`, `wasm`, `oci`.
    pub r#type: Option<String>,
    /// Where the artifact lies.
    pub location: Option<Location>,
    /// Whether to restart it when it fails.
    pub essential: Option<bool>,
    /// Claims: name, digest, issuer.
    pub workload_jwt: Option<String>,
    /// Sealed environment, standard padded base64.
    pub environment: Option<String>,
    /// JetStream domain of the artifact's bucket.
    pub jsdomain: Option<String>,
    /// JetStream domain of the server that its deployer is connected to: where `jsdomain` is empty and the node's server has another domain,
    /// the artifact lies in this one (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_domain: Option<String>,
    /// Who sealed the environment.
    pub sender_public_key: Option<String>,
    /// The node meant.
    pub target_node: Option<String>,
    /// Subjects that call the function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger_subjects: Option<Vec<String>>,
    /// What else calls it, each as [`crate::trigger::Trigger`] reads it (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triggers: Option<Vec<String>>,
    /// Where those subjects are subscribed, if not on the node's own connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger_connection: Option<ConnectionDetails>,
    /// The connection of this workload's host services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_services: Option<ConnectionDetails>,
    /// Bounds (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<RequestedLimits>,
    /// Class of the machine it runs on, a name of the node's `machine_classes` (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_class: Option<String>,
    /// How far it is kept apart from others, an [`Isolation`]; as its node does it if absent (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// How long it has to run before it counts as started, ms; one that ends before is answered with a failure and its last lines. It counts
    /// at once if absent (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settle_ms: Option<u64>,
    /// By what its deployer tells this version of the workload from others, see [`is_revision`]; a node only repeats it (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// How it is kept: restarts, stop, health, or as a job (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<RunPolicy>,
    /// Variables whose values are secrets of its issuer, by the secrets' names, see [`crate::secret`] (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<BTreeMap<String, String>>,
    /// What its node was chosen by (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<RequestedPlacement>,
    /// Id of a workload of the same name and issuer on the node, which is stopped as soon as this one runs: where the quotas have no room
    /// for both, it lends its own, and the node stops it (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

/// How a workload was deployed: its request without the token, and its environment (new). Has no `Debug`: it holds secrets.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployedSettings {
    /// The request, without token and sealed environment.
    pub request: DeployRequest,
    /// The environment, opened.
    pub environment: BTreeMap<String, String>,
}

impl fmt::Debug for DeployedSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeployedSettings").field("type", &self.request.r#type).finish_non_exhaustive()
    }
}

impl DeployedSettings {
    /// What they are called where they are sealed.
    pub const NAME: &'static str = "settings";
}

/// Longest revision, bytes.
pub const MAX_REVISION: usize = 128;

/// Whether a text may be a revision: letters, digits and punctuation of ASCII, without blanks.
#[must_use]
pub fn is_revision(text: &str) -> bool {
    (1..=MAX_REVISION).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What bound claims say of the request they are for: SHA-256 of its JSON without `workload_jwt`, members of every object sorted by
/// name, without white space. Nothing in a request can be changed after signing, also what this version does not know.
///
/// # Errors
/// When the body is no JSON object.
pub fn request_digest(body: &[u8]) -> Result<Digest, serde_json::Error> {
    let mut request: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body)?;
    request.remove("workload_jwt");
    Ok(Digest::of(canonical(&serde_json::Value::Object(request)).as_bytes()))
}

fn canonical(value: &serde_json::Value) -> String {
    let list = |parts: Vec<String>| parts.join(",");
    match value {
        serde_json::Value::Object(members) => {
            let sorted: BTreeMap<&String, &serde_json::Value> = members.iter().collect();
            let member =
                |(name, value): (&String, &serde_json::Value)| format!("{}:{}", serde_json::json!(name), canonical(value));
            format!("{{{}}}", list(sorted.into_iter().map(member).collect()))
        }
        serde_json::Value::Array(items) => format!("[{}]", list(items.iter().map(canonical).collect())),
        plain => plain.to_string(),
    }
}

/// Answer to DEPLOY.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployResponse {
    /// Whether it runs.
    pub started: bool,
    /// Workload id.
    pub id: String,
    /// Who may stop it.
    pub issuer: String,
    /// Workload name.
    pub name: String,
    /// Its exit code, where it has ended: 0 while it was to settle, any where this answers a request that came again (new).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl DeployResponse {
    /// A workload that was started.
    #[must_use]
    pub fn started(id: &WorkloadId, issuer: &str, name: &WorkloadName) -> Self {
        Self { started: true, id: id.to_string(), issuer: issuer.to_owned(), name: name.to_string(), exit_code: None }
    }
}

/// Stop this.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StopRequest {
    /// Which.
    pub workload_id: Option<String>,
    /// Claims of the issuer that started it.
    pub workload_jwt: Option<String>,
    /// The node meant.
    pub target_node: Option<String>,
}

/// Answer to STOP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopResponse {
    /// Whether it is stopped.
    pub stopped: bool,
    /// Workload id.
    pub id: String,
    /// Its issuer.
    pub issuer: String,
    /// Its name.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_requests_digest_covers_everything_but_its_token_in_any_order() {
        let digest = |text: &str| request_digest(text.as_bytes()).unwrap();
        let one = digest(r#"{"type":"v8","argv":["a","b"],"workload_jwt":"x","limits":{"memory_mib":1,"concurrency":2}}"#);
        assert_eq!(one, digest(r#" { "limits": {"concurrency":2,"memory_mib":1}, "argv": ["a", "b"], "type": "v8" } "#));
        assert_eq!(one, Digest::of(br#"{"argv":["a","b"],"limits":{"concurrency":2,"memory_mib":1},"type":"v8"}"#));
        for other in [r#"{"type":"v8"}"#, r#"{"type":"v8","argv":["b","a"],"limits":{"memory_mib":1,"concurrency":2}}"#] {
            assert_ne!(one, digest(other));
        }
        assert!(request_digest(b"[]").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop((serde_json::from_slice::<DeployRequest>(&bytes), serde_json::from_slice::<StopRequest>(&bytes)));
        }
    }
}
