//! Sealed environments: a JSON map, boxed for one curve key (`xkv1`), as base64 in the request.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use nkeys::{KeyPair, XKey};

use crate::id::NodeId;

/// A workload's environment variables.
pub type Environment = BTreeMap<String, String>;

/// The member of a service's environment that becomes a file, whose path the service finds as `NATS_CREDS`: credentials meant for it.
pub const NATS_CREDS: &str = "nex:nats-creds";
/// What other members of a service's environment begin with that become files; the rest is the variable that has the file's path.
pub const FILE: &str = "nex:file:";

/// The variable in which a service finds the path of the file that a member of its environment becomes; nothing for one that is a variable
/// itself.
#[must_use]
pub fn file_variable(member: &str) -> Option<&str> {
    if member == NATS_CREDS { Some("NATS_CREDS") } else { member.strip_prefix(FILE) }
}

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

/// Which deploy an environment was sealed for: it travels inside the box, so that nobody can put the box into a request of his own.
///
/// Two members of the map that no shell would take for variables; a node of 0.2.7 passes them on like others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Who signs the deploy.
    pub issuer: String,
    /// Id of the token of that deploy.
    pub token: String,
}

const ISSUER: &str = "nex:issuer";
const TOKEN: &str = "nex:token";

impl Binding {
    /// The environment with the binding in it, to be sealed.
    #[must_use]
    pub fn put(&self, mut environment: Environment) -> Environment {
        environment.insert(ISSUER.to_owned(), self.issuer.clone());
        environment.insert(TOKEN.to_owned(), self.token.clone());
        environment
    }

    /// Takes the binding out of an opened environment, if it has one.
    #[must_use]
    pub fn take(environment: &mut Environment) -> Option<Self> {
        match (environment.remove(ISSUER), environment.remove(TOKEN)) {
            (None, None) => None,
            // Half a binding is one that nothing fits.
            (issuer, token) => Some(Self { issuer: issuer.unwrap_or_default(), token: token.unwrap_or_default() }),
        }
    }
}

/// Signs the statement of a node that a curve key is its own.
///
/// # Errors
/// When the node's key has no seed.
pub fn sign_xkey(node: &KeyPair, xkey: &str) -> Result<String, nkeys::error::Error> {
    Ok(BASE64.encode(&node.sign(statement(&node.public_key(), xkey).as_bytes())?))
}

/// Whether a node says that a curve key is its own.
#[must_use]
pub fn is_xkey_of(node: &NodeId, xkey: &str, signature: &str) -> bool {
    let verified = || {
        let signature = BASE64.decode(signature.as_bytes()).ok()?;
        KeyPair::from_public_key(node.as_str()).ok()?.verify(statement(node.as_str(), xkey).as_bytes(), &signature).ok()
    };
    // nkeys panics on a signature of another length.
    signature.len() == 88 && verified().is_some()
}

fn statement(node: &str, xkey: &str) -> String {
    format!("nex xkey {xkey} of {node}")
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
    fn a_binding_travels_in_the_environment_and_is_taken_out() {
        let binding = Binding { issuer: "A".into(), token: "T".into() };
        let plain = Environment::from([("KEY".to_owned(), "value".to_owned())]);
        let mut bound = binding.put(plain.clone());
        assert_eq!(bound.len(), 3);
        assert_eq!((Binding::take(&mut bound), &bound), (Some(binding), &plain));
        assert_eq!(Binding::take(&mut bound), None);
        bound.insert(TOKEN.to_owned(), "T".to_owned());
        assert_eq!(Binding::take(&mut bound), Some(Binding { issuer: String::new(), token: "T".into() }));
    }

    #[test]
    fn only_the_node_says_which_curve_key_is_its_own() {
        let (node, rogue, xkey) = (KeyPair::new_server(), KeyPair::new_server(), XKey::new().public_key());
        let id: NodeId = node.public_key().parse().unwrap();
        let signature = sign_xkey(&node, &xkey).unwrap();
        assert!(is_xkey_of(&id, &xkey, &signature));
        assert!(!is_xkey_of(&id, &XKey::new().public_key(), &signature));
        assert!(!is_xkey_of(&id, &xkey, &sign_xkey(&rogue, &xkey).unwrap()));
        for nonsense in ["", "x", &BASE64.encode(&[0; 64]), &"A".repeat(88)] {
            assert!(!is_xkey_of(&id, &xkey, nonsense), "{nonsense}");
        }
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
