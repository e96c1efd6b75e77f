//! Bodies of DEPLOY and STOP, as 0.2.7 sends them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::id::{WorkloadId, WorkloadName};

/// What kind of artifact a workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadType {
    /// A binary or script for the node's operating system, run as a service.
    Native,
    /// A JavaScript function; `js` on input means the same.
    #[serde(alias = "js")]
    V8,
    /// A WebAssembly function: a WASI command or a component with `wasi:cli/run`.
    Wasm,
    /// An OCI image; the name is reserved, no node runs it yet.
    Oci,
}

/// A text that names no workload type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown workload type '{0}': expected native, v8 (or js), wasm or oci")]
pub struct UnknownType(String);

impl WorkloadType {
    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::V8 => "v8",
            Self::Wasm => "wasm",
            Self::Oci => "oci",
        }
    }

    /// Whether a workload of this type is called (by triggers) instead of running by itself.
    #[must_use]
    pub fn is_function(self) -> bool {
        matches!(self, Self::V8 | Self::Wasm)
    }

    /// Whether a text names this type.
    #[must_use]
    pub fn matches(self, text: &str) -> bool {
        text.parse() == Ok(self)
    }
}

impl fmt::Display for WorkloadType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WorkloadType {
    type Err = UnknownType;
    fn from_str(text: &str) -> Result<Self, UnknownType> {
        match text {
            "native" => Ok(Self::Native),
            "v8" | "js" => Ok(Self::V8),
            "wasm" => Ok(Self::Wasm),
            "oci" => Ok(Self::Oci),
            other => Err(UnknownType(other.chars().take(40).collect())),
        }
    }
}

/// Where an artifact lies: an object of a NATS object store.
///
/// Shape: a Go `url.URL` as JSON (`{"Scheme":"nats","Host":"BUCKET","Path":"/key", …}`, any case, members may be missing) or
/// a plain string `nats://BUCKET/key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Object store bucket.
    pub bucket: String,
    /// Name of the object, no slash at either end.
    pub key: String,
}

impl FromStr for Location {
    type Err = InvalidLocation;
    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        let refuse = || InvalidLocation(text.chars().take(200).collect());
        let (bucket, key) = text.strip_prefix("nats://").and_then(|rest| rest.split_once('/')).ok_or_else(refuse)?;
        Self::new(bucket, key).ok_or_else(refuse)
    }
}

/// A text that names no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no artifact location: expected nats://BUCKET/key")]
pub struct InvalidLocation(String);

impl Location {
    /// A location, if the bucket's name is legal and the key is not empty.
    #[must_use]
    pub fn new(bucket: &str, key: &str) -> Option<Self> {
        let key = key.trim_matches('/');
        let bucket_ok = !bucket.is_empty()
            && bucket.len() <= 128
            && bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let key_ok = !key.is_empty() && key.len() <= 1024;
        (bucket_ok && key_ok).then(|| Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nats://{}/{}", self.bucket, self.key)
    }
}

impl Serialize for Location {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::json!({
            "Scheme": "nats", "Opaque": "", "User": null, "Host": self.bucket, "Path": format!("/{}", self.key), "RawPath": "",
            "OmitHost": false, "ForceQuery": false, "RawQuery": "", "Fragment": "", "RawFragment": "",
        })
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Location {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let part = |name: &str| {
            let members = value.as_object()?;
            let (_, found) = members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            found.as_str()
        };
        if let Some(text) = value.as_str() {
            return text.parse().map_err(serde::de::Error::custom);
        }
        let (bucket, key) = (part("host").unwrap_or_default(), part("path").unwrap_or_default());
        Self::new(bucket, key)
            .ok_or_else(|| serde::de::Error::custom(InvalidLocation(format!("nats://{bucket}{key}").chars().take(200).collect())))
    }
}

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

/// Bounds a deployer asks for (new); the node's own bounds cap them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestedLimits {
    /// Memory of one instance or of the service's process, MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Longest time of one call, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_timeout_ms: Option<u64>,
    /// Calls under way at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<usize>,
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
    /// Who sealed the environment.
    pub sender_public_key: Option<String>,
    /// The node meant.
    pub target_node: Option<String>,
    /// Subjects that call the function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger_subjects: Option<Vec<String>>,
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
    /// How long it has to run before it counts as started, ms; one that ends before is answered with a failure and its last lines. It counts
    /// at once if absent (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settle_ms: Option<u64>,
    /// By what its deployer tells this version of the workload from others, see [`is_revision`]; a node only repeats it (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
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
    /// Set to 0 where it has done its work and ended while it was to settle (new).
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
    fn a_location_is_a_go_url_or_a_string() {
        let expected = Location { bucket: "NEXCLIFILES".into(), key: "echo".into() };
        for text in [
            r#"{"Scheme":"nats","Opaque":"","User":null,"Host":"NEXCLIFILES","Path":"/echo","RawPath":"","OmitHost":false}"#,
            r#"{"host":"NEXCLIFILES","path":"echo/"}"#,
            r#""nats://NEXCLIFILES/echo""#,
        ] {
            assert_eq!(serde_json::from_str::<Location>(text).unwrap(), expected, "{text}");
        }
        let written = serde_json::to_string(&expected).unwrap();
        assert_eq!(serde_json::from_str::<Location>(&written).unwrap(), expected);
        for text in ["null", "{}", "7", r#""http://a/b""#, r#"{"Host":"a.b","Path":"/x"}"#, r#"{"Host":"A","Path":"//"}"#] {
            assert!(serde_json::from_str::<Location>(text).is_err(), "{text}");
        }
    }

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
