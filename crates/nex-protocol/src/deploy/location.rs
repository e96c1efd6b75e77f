//! Where an artifact lies, as a Go URL or a text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

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

    /// Whether the object is called as TypeScript is: `.ts`, `.mts`.
    #[must_use]
    pub fn is_typescript(&self) -> bool {
        self.key.ends_with(".ts") || self.key.ends_with(".mts")
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
