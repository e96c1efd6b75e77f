//! Secrets that lie in a bucket of their namespace: who set them, what they are sealed to, and who can open them.
//!
//! A secret is its issuer's: the key that signs a deploy is the only one that can have set what the deploy uses. Each version of it has a
//! curve key of its own, to which the value is sealed. The seed of that key is sealed to the issuer, and to each node that runs
//! something that uses the secret, and to nobody else; the issuer signs the whole. So whoever can write to the bucket can take a secret
//! away and read nothing, and no key is shared by nodes.

use std::collections::BTreeMap;
use std::fmt;

use data_encoding::BASE64;
use nkeys::{KeyPair, XKey};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{Namespace, NodeId, SecretName};
use crate::seal::{self, Environment, SealError};

/// Longest value, bytes.
pub const MAX_VALUE: usize = 64 * 1024;
/// Most secrets of a workload.
pub const MAX_OF_A_WORKLOAD: usize = 64;
/// Most nodes that can open one.
const MAX_NODES: usize = 512;
/// Longest record, bytes.
const MAX_RECORD: usize = 512 * 1024;

/// Bucket of a namespace's secrets.
#[must_use]
pub fn bucket(namespace: &Namespace) -> String {
    format!("NEXSECRETS_{namespace}")
}

/// The stream behind that bucket.
#[must_use]
pub fn stream(namespace: &Namespace) -> String {
    format!("KV_{}", bucket(namespace))
}

/// Where a secret lies: of which namespace, whose, which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Its namespace.
    pub namespace: &'a Namespace,
    /// Public key of who set it.
    pub issuer: &'a str,
    /// Its name.
    pub name: &'a SecretName,
}

impl Place<'_> {
    /// Its key in the bucket.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}.{}", self.issuer, self.name)
    }

    /// The subject that its record is published on.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("$KV.{}.{}", bucket(self.namespace), self.key())
    }
}

/// Why a secret cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It is no record of a secret.
    #[error("what lies there is no secret")]
    Malformed,
    /// Its issuer has not signed it.
    #[error("its issuer has not signed it")]
    Signature,
    /// It was signed as another one, and put here by somebody else.
    #[error("it was signed as another secret, or that of another namespace")]
    OfAnotherPlace,
    /// It is not sealed to this node.
    #[error("it is not sealed to this node; next: deploy again, which seals it")]
    NotForThisNode,
    /// The value is too long, or holds what no environment can.
    #[error("a secret has 1 byte to 64 KiB, without a zero byte; next: keep longer ones in an object store")]
    Value,
    /// Too many nodes.
    #[error("more than {MAX_NODES} nodes would be able to open it; next: set it again with --forget-nodes")]
    TooManyNodes,
    /// A key cannot sign or seal.
    #[error("the issuer's key cannot sign or seal; next: give an issuer file that holds a seed (S…)")]
    Key,
    /// It does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// As it lies in the bucket: what is signed is a text, so that nothing is lost that this version does not know.
#[derive(Serialize, Deserialize)]
struct Signed {
    secret: String,
    signature: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    namespace: Namespace,
    issuer: String,
    name: SecretName,
    version: u64,
    /// Public curve key that seals: the issuer's own.
    by: String,
    /// Public curve key of this version.
    to: String,
    /// The value, sealed to that.
    value: String,
    /// The seed of that, sealed to the issuer.
    owner: String,
    /// And to nodes.
    #[serde(default)]
    nodes: BTreeMap<NodeId, SealedToNode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SealedToNode {
    xkey: String,
    seed: String,
}

/// A secret with the signature of its issuer, made or verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Body);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.0.name).field("version", &self.0.version).finish_non_exhaustive()
    }
}

/// What is sealed, by name.
const VALUE: &str = "value";
const SEED: &str = "seed";

/// The issuer's curve key, which follows from the key that signs: whoever has that, on whatever computer, can open his secrets.
fn owner_key(issuer: &KeyPair) -> Result<XKey, SecretError> {
    let seed = issuer.seed().map_err(|_no_seed| SecretError::Key)?;
    let digest = Digest::of(format!("nex secrets of an issuer: {seed}").as_bytes());
    Ok(XKey::new_from_raw(digest.bytes()))
}

fn seal_one(name: &str, text: &str, sender: &XKey, recipient: &str) -> Result<String, SecretError> {
    Ok(seal::seal(&Environment::from([(name.to_owned(), text.to_owned())]), sender, recipient)?)
}

fn open_one(name: &str, sealed: &str, recipient: &XKey, sender: &str) -> Result<String, SecretError> {
    seal::open(sealed, recipient, sender)?.remove(name).ok_or(SecretError::Malformed)
}

impl Secret {
    /// A new version, sealed to its issuer and to nobody else.
    ///
    /// # Errors
    /// [`SecretError`]
    pub fn new(
        namespace: &Namespace,
        name: &SecretName,
        issuer: &KeyPair,
        version: u64,
        value: &str,
    ) -> Result<Self, SecretError> {
        if !(1..=MAX_VALUE).contains(&value.len()) || value.contains('\0') {
            return Err(SecretError::Value);
        }
        let (owner, own) = (owner_key(issuer)?, XKey::new());
        let seed = own.seed().map_err(|_no_seed| SecretError::Key)?;
        Ok(Self(Body {
            namespace: namespace.clone(),
            issuer: issuer.public_key(),
            name: name.clone(),
            version,
            by: owner.public_key(),
            to: own.public_key(),
            value: seal_one(VALUE, value, &owner, &own.public_key())?,
            owner: seal_one(SEED, &seed, &owner, &owner.public_key())?,
            nodes: BTreeMap::new(),
        }))
    }

    /// Reads and verifies what lies at a place.
    ///
    /// # Errors
    /// [`SecretError`]
    pub fn read(record: &[u8], place: Place<'_>) -> Result<Self, SecretError> {
        if record.len() > MAX_RECORD {
            return Err(SecretError::Malformed);
        }
        let Signed { secret, signature } = serde_json::from_slice(record).map_err(|_no_record| SecretError::Malformed)?;
        let signature = BASE64.decode(signature.as_bytes()).map_err(|_no_base64| SecretError::Signature)?;
        // nkeys panics on a signature of another length.
        let key = KeyPair::from_public_key(place.issuer).ok().filter(|_| signature.len() == 64);
        let verified = key.and_then(|key| key.verify(statement(&secret).as_bytes(), &signature).ok());
        verified.ok_or(SecretError::Signature)?;
        let body: Body = serde_json::from_str(&secret).map_err(|_no_body| SecretError::Malformed)?;
        let own = Place { namespace: &body.namespace, issuer: &body.issuer, name: &body.name };
        if own != place {
            return Err(SecretError::OfAnotherPlace);
        }
        Ok(Self(body))
    }

    /// As it is kept, signed.
    ///
    /// # Errors
    /// [`SecretError::Key`] when this is not its issuer's key.
    pub fn sign(&self, issuer: &KeyPair) -> Result<Vec<u8>, SecretError> {
        if issuer.public_key() != self.0.issuer {
            return Err(SecretError::Key);
        }
        let secret = serde_json::to_string(&self.0).unwrap_or_default();
        let signature = issuer.sign(statement(&secret).as_bytes()).map_err(|_no_seed| SecretError::Key)?;
        Ok(serde_json::to_vec(&Signed { secret, signature: BASE64.encode(&signature) }).unwrap_or_default())
    }

    /// Which version it is: a later one has a larger number.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.version
    }

    /// The nodes that can open it, with the curve keys it is sealed to.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &str)> {
        self.0.nodes.iter().map(|(node, sealed)| (node, sealed.xkey.as_str()))
    }

    /// Whether a node can open it by this curve key.
    #[must_use]
    pub fn is_for(&self, node: &NodeId, xkey: &str) -> bool {
        self.0.nodes.get(node).is_some_and(|sealed| sealed.xkey == xkey)
    }

    /// Seals it to one more node.
    ///
    /// # Errors
    /// [`SecretError`]
    pub fn seal_to(&mut self, node: &NodeId, xkey: &str, issuer: &KeyPair) -> Result<(), SecretError> {
        if self.0.nodes.len() >= MAX_NODES && !self.0.nodes.contains_key(node) {
            return Err(SecretError::TooManyNodes);
        }
        let owner = owner_key(issuer)?;
        let seed = open_one(SEED, &self.0.owner, &owner, &self.0.by)?;
        let sealed = SealedToNode { xkey: xkey.to_owned(), seed: seal_one(SEED, &seed, &owner, xkey)? };
        self.0.nodes.insert(node.clone(), sealed);
        Ok(())
    }

    /// Its value, for a node that it is sealed to.
    ///
    /// # Errors
    /// [`SecretError`]
    pub fn open(&self, node: &NodeId, xkey: &XKey) -> Result<String, SecretError> {
        let sealed = self.0.nodes.get(node).filter(|sealed| sealed.xkey == xkey.public_key());
        let sealed = sealed.ok_or(SecretError::NotForThisNode)?;
        let seed = open_one(SEED, &sealed.seed, xkey, &self.0.by)?;
        let own = XKey::from_seed(&seed).map_err(|_no_seed| SecretError::Malformed)?;
        let value = open_one(VALUE, &self.0.value, &own, &self.0.by)?;
        if value.len() > MAX_VALUE || value.contains('\0') { Err(SecretError::Value) } else { Ok(value) }
    }
}

fn statement(secret: &str) -> String {
    format!("nex secret: {secret}")
}

#[cfg(test)]
mod tests;
