//! Names and ids: parsed once at the border, safe as subject tokens and file names ever after.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32HEX_NOPAD;
use rand::RngCore as _;
use serde::{Deserialize, Serialize};

/// A text that is not the id or name it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a valid {what}: {rule}")]
pub struct InvalidId {
    what: &'static str,
    text: String,
    rule: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId { what: $what, text: text.chars().take(80).collect(), rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A node's identity: the public part of a server nkey, `N…`, 56 characters.
    NodeId,
    "node id",
    "expected a public server key: N followed by 55 letters and digits",
    |text| text.starts_with('N') && is_public_key(text)
);

id!(
    /// A workload for as long as it is wanted, whatever instances and agents come and go: 20 characters of `0-9a-v`, sortable by the
    /// time of making.
    WorkloadId,
    "workload id",
    "expected 20 characters of 0-9 and a-v",
    is_minted
);

id!(
    /// An agent, its sandbox and its user on the internal bus; of the same form as a [`WorkloadId`].
    AgentId,
    "agent id",
    "expected 20 characters of 0-9 and a-v",
    is_minted
);

id!(
    /// One start of a workload on an agent; of the same form as a [`WorkloadId`].
    InstanceId,
    "instance id",
    "expected 20 characters of 0-9 and a-v",
    is_minted
);

id!(
    /// A tenant's token in every subject.
    Namespace,
    "namespace",
    "expected 1 to 64 letters, digits, '-' and '_'",
    |text| is_token(text, 64)
);

id!(
    /// A workload's name, the subject of its claims.
    WorkloadName,
    "workload name",
    "expected 1 to 128 letters, digits, '-' and '_'",
    |text| is_token(text, 128)
);

id!(
    /// A secret's name, under which workloads of its issuer use it.
    SecretName,
    "secret name",
    "expected 1 to 64 letters, digits, '-' and '_'",
    |text| is_token(text, 64)
);

macro_rules! minted {
    ($($name:ident),*) => {$(
        impl $name {
            /// A new id: the seconds since 1970, then 64 random bits.
            #[must_use]
            pub fn new(unix_seconds: u32) -> Self {
                Self(mint(unix_seconds))
            }
        }
    )*};
}

minted!(WorkloadId, AgentId, InstanceId);

fn mint(unix_seconds: u32) -> String {
    let mut bytes = [0_u8; 12];
    let (time, random) = bytes.split_at_mut(4);
    time.copy_from_slice(&unix_seconds.to_be_bytes());
    rand::rng().fill_bytes(random);
    BASE32HEX_NOPAD.encode(&bytes).to_ascii_lowercase()
}

fn is_minted(text: &str) -> bool {
    text.len() == 20 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v'))
}

/// Whether a text has the form of a public nkey of any kind; its checksum is verified where it is used as a key.
#[must_use]
pub fn is_public_key(text: &str) -> bool {
    text.len() == 56 && text.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'))
}

fn is_token(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_workload_id_is_valid_and_unlike_the_last() {
        let id = WorkloadId::new(1_700_000_000);
        assert_eq!(id.as_str().parse::<WorkloadId>(), Ok(id.clone()));
        assert_ne!(id, WorkloadId::new(1_700_000_000));
        assert!(WorkloadId::new(1) < WorkloadId::new(2));
    }

    proptest! {
        #[test]
        fn no_accepted_name_can_break_a_subject_or_a_path(text in ".{0,200}") {
            if let Ok(name) = text.parse::<WorkloadName>() {
                prop_assert!(!name.as_str().contains(['.', '*', '>', ' ', '/', '\0']));
            }
            if let Ok(name) = text.parse::<Namespace>() {
                prop_assert!(!name.as_str().contains(['.', '*', '>', ' ', '/', '\0']));
            }
        }
    }
}
