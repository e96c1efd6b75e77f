//! Sealed environments: a JSON map, boxed for one curve key (`xkv1`), as base64 in the request.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use nkeys::XKey;

/// A workload's environment variables.
pub type Environment = BTreeMap<String, String>;

/// Largest sealed environment accepted, in bytes of base64.
pub const MAX_BYTES: usize = 512 * 1024;

/// Why an environment could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not a public or secret curve key.
    #[error("'{0}' is not a curve key (X…)")]
    Key(String),
    /// Too long, not base64, or not boxed for this key by that sender.
    #[error("{0}")]
    Sealed(String),
    /// The plain text is not a map of strings.
    #[error("the opened text is not a JSON object of strings")]
    NotAMap,
}

/// Boxes an environment for a recipient.
///
/// # Errors
/// [`SealError::Key`] when the recipient is no curve key, [`SealError::Sealed`] when the sender has no seed.
pub fn seal(environment: &Environment, sender: &XKey, recipient: &str) -> Result<String, SealError> {
    let to = public_key(recipient)?;
    let plain = serde_json::to_vec(environment).unwrap_or_default();
    let sealed = sender.seal(&plain, &to).map_err(|e| SealError::Sealed(e.to_string()))?;
    Ok(BASE64.encode(&sealed))
}

/// Opens what a sender boxed for this key.
///
/// # Errors
/// [`SealError`]; nothing of the content is in its text.
pub fn open(sealed: &str, recipient: &XKey, sender: &str) -> Result<Environment, SealError> {
    if sealed.len() > MAX_BYTES {
        return Err(SealError::Sealed(format!("it is larger than {MAX_BYTES} bytes")));
    }
    let from = public_key(sender)?;
    let bytes = BASE64.decode(sealed.as_bytes()).map_err(|e| SealError::Sealed(format!("not base64: {e}")))?;
    // nkeys indexes into the version, nonce and tag: shorter input never gets there.
    if bytes.len() <= 44 {
        return Err(SealError::Sealed("it is too short to be sealed".into()));
    }
    let plain =
        recipient.open(&bytes, &from).map_err(|_e| SealError::Sealed("it was not sealed for this node by that sender".into()))?;
    let map: Option<Environment> = serde_json::from_slice(&plain).map_err(|_e| SealError::NotAMap)?;
    Ok(map.unwrap_or_default())
}

fn public_key(text: &str) -> Result<XKey, SealError> {
    let refuse = || SealError::Key(text.chars().take(60).collect());
    if !text.starts_with('X') || !crate::id::is_public_key(text) {
        return Err(refuse());
    }
    XKey::from_public_key(text).map_err(|_e| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_recipient_opens_it() {
        let (sender, node, other) = (XKey::new(), XKey::new(), XKey::new());
        let environment = Environment::from([("TOKEN".to_owned(), "s3cret".to_owned())]);
        let sealed = seal(&environment, &sender, &node.public_key()).unwrap();
        assert_eq!(open(&sealed, &node, &sender.public_key()), Ok(environment));
        assert!(matches!(open(&sealed, &other, &sender.public_key()), Err(SealError::Sealed(_))));
        assert!(matches!(open(&sealed, &node, &other.public_key()), Err(SealError::Sealed(_))));
        assert!(matches!(open(&sealed, &node, "XBAD"), Err(SealError::Key(_))));
    }

    #[test]
    fn a_null_map_of_0_2_7_is_an_empty_environment() {
        let (sender, node) = (XKey::new(), XKey::new());
        let sealed = BASE64.encode(&sender.seal(b"null", &XKey::from_public_key(&node.public_key()).unwrap()).unwrap());
        assert_eq!(open(&sealed, &node, &sender.public_key()), Ok(Environment::new()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let (sender, node) = (XKey::new_from_raw([1; 32]), XKey::new_from_raw([2; 32]));
            drop(open(&BASE64.encode(&bytes), &node, &sender.public_key()));
            drop(open(&String::from_utf8_lossy(&bytes), &node, "X"));
        }
    }
}
