//! Workload claims: the signed statement of an issuer about a workload, a NATS-style JWT. Pure; the caller brings the clock.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use nkeys::KeyPair;
use rand::RngCore as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{Namespace, NodeId, WorkloadId};

/// Longest token accepted, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;

/// How far a token's times may lie in the future of this host's clock, in seconds.
const CLOCK_SKEW: i64 = 60;

/// How long claims that stop one workload are good, in seconds: the request is sent at once.
const STOP_SECONDS: i64 = 120;

/// What an issuer says about a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Unique id of this token.
    #[serde(default)]
    pub jti: String,
    /// When it was made, seconds since 1970.
    #[serde(default)]
    pub iat: i64,
    /// Public key of the signer.
    pub iss: String,
    /// Workload name.
    pub sub: String,
    /// For whom it is: a node's id, or `nexus:<name>`. Clients of 0.2.7 do not say (new).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// Not valid from here on, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// Not valid before, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// What it says.
    #[serde(default)]
    pub nats: Body,
}

/// The part of the claims that is ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Body {
    /// SHA-256 of the artifact, hex; clients of 0.2.7 put a placeholder here. Absent in stop tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Namespace it is for (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Digest of the deploy request it is for, see [`crate::deploy::request_digest`] (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Digest>,
    /// The workload it stops (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadId>,
    /// Always 2.
    pub version: u8,
}

/// Where a token is used, to be compared with what it is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The node.
    pub node: &'a NodeId,
    /// Its group.
    pub nexus: &'a str,
    /// The namespace of the request.
    pub namespace: &'a str,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// Not three base64url parts of JSON, or too long.
    #[error("{0}")]
    Malformed(String),
    /// The signature is not the issuer's.
    #[error("its signature is not that of its issuer")]
    Signature,
    /// Its `exp` is past.
    #[error("it expired {0} s ago; sign a new one")]
    Expired(i64),
    /// It is bound to something else.
    #[error("it is for another {0}; sign one for each request")]
    Elsewhere(&'static str),
    /// Its `nbf` or `iat` lies in the future.
    #[error("it is not valid for another {0} s; compare the clocks of the two hosts")]
    NotYet(i64),
}

#[derive(Serialize, Deserialize)]
struct Header {
    typ: String,
    alg: String,
}

/// Signs any claims by an nkey: `{"typ":"JWT","alg":"ed25519-nkey"}`. The jti is made here.
///
/// # Errors
/// When the key has no seed.
pub fn sign<T: Serialize>(claims: &T, key: &KeyPair) -> Result<String, nkeys::error::Error> {
    let part = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let header = part(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let body = part(&serde_json::to_vec(claims).unwrap_or_default());
    let signed = format!("{header}.{body}");
    let signature = key.sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", part(&signature)))
}

/// A fresh token id.
#[must_use]
pub fn new_jti() -> String {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    BASE32_NOPAD.encode(&bytes)
}

impl Claims {
    /// Claims that start a workload, not bound to a place or a request yet.
    #[must_use]
    pub fn to_start(name: &str, issuer: &KeyPair, digest: &Digest, now: i64, lives_seconds: i64) -> Self {
        Self {
            nats: Body { hash: Some(digest.to_string()), version: 2, ..Body::default() },
            exp: Some(now.saturating_add(lives_seconds)),
            ..Self::to_stop(name, issuer, now)
        }
    }

    /// Claims that stop a workload of this name, not bound to one yet.
    #[must_use]
    pub fn to_stop(name: &str, issuer: &KeyPair, now: i64) -> Self {
        let nats = Body { version: 2, ..Body::default() };
        Self { jti: new_jti(), iat: now, iss: issuer.public_key(), sub: name.to_owned(), aud: None, exp: None, nbf: None, nats }
    }

    /// The same, good on one node, in one namespace, for one deploy request.
    #[must_use]
    pub fn bound_to_request(mut self, node: &NodeId, namespace: &Namespace, request: Digest) -> Self {
        self.aud = Some(node.to_string());
        self.nats.namespace = Some(namespace.to_string());
        self.nats.request = Some(request);
        self
    }

    /// The same, good on one node, in one namespace, for one workload, and not for long.
    #[must_use]
    pub fn bound_to_workload(mut self, node: &NodeId, namespace: &Namespace, workload: &WorkloadId) -> Self {
        self.aud = Some(node.to_string());
        self.exp = Some(self.iat.saturating_add(STOP_SECONDS));
        self.nats.namespace = Some(namespace.to_string());
        self.nats.workload = Some(workload.clone());
        self
    }

    /// Whether they say on which node and in which namespace they are good.
    #[must_use]
    pub fn is_bound_to_a_place(&self) -> bool {
        self.aud.is_some() && self.nats.namespace.is_some()
    }

    /// Compares what they are bound to with where they are used; claims of 0.2.7 are good everywhere.
    ///
    /// # Errors
    /// [`ClaimsError::Elsewhere`].
    pub fn check_place(&self, place: Place<'_>) -> Result<(), ClaimsError> {
        let is_here = |aud: &String| aud == place.node.as_str() || aud.strip_prefix("nexus:") == Some(place.nexus);
        if !self.aud.as_ref().is_none_or(is_here) {
            return Err(ClaimsError::Elsewhere("node"));
        }
        if self.nats.namespace.as_ref().is_some_and(|namespace| namespace != place.namespace) {
            return Err(ClaimsError::Elsewhere("namespace"));
        }
        Ok(())
    }

    /// Decodes a token and verifies that its issuer signed it. Its times are [`Self::check_times`]'s to judge.
    ///
    /// # Errors
    /// [`ClaimsError::Malformed`] or [`ClaimsError::Signature`].
    pub fn decode(token: &str) -> Result<Self, ClaimsError> {
        let malformed = |why: &str| ClaimsError::Malformed(why.to_owned());
        if token.len() > MAX_BYTES {
            return Err(malformed("it is longer than 16 KiB"));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(body), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("expected 3 chunks"));
        };
        let parsed: Header = decode_part(header)?;
        if !parsed.typ.eq_ignore_ascii_case("jwt") {
            return Err(malformed("its header says it is not a JWT"));
        }
        let claims: Self = decode_part(body)?;
        refuse_other_kinds(body)?;
        let signed = match parsed.alg.to_ascii_lowercase().as_str() {
            "ed25519-nkey" => format!("{header}.{body}"),
            "ed25519" => body.to_owned(),
            _ => return Err(malformed("its algorithm is not ed25519-nkey")),
        };
        let key = KeyPair::from_public_key(&claims.iss).map_err(|e| malformed(&format!("its issuer is no public key: {e}")))?;
        let signature =
            BASE64URL_NOPAD.decode(signature.as_bytes()).map_err(|e| malformed(&format!("bad signature part: {e}")))?;
        key.verify(signed.as_bytes(), &signature).map_err(|_bad| ClaimsError::Signature)?;
        Ok(claims)
    }

    /// Judges expiry and not-before against a clock.
    ///
    /// # Errors
    /// [`ClaimsError::Expired`] or [`ClaimsError::NotYet`].
    pub fn check_times(&self, now: i64) -> Result<(), ClaimsError> {
        match (self.exp, self.nbf) {
            (Some(exp), _) if exp <= now => Err(ClaimsError::Expired(now.saturating_sub(exp))),
            (_, Some(nbf)) if nbf > now.saturating_add(CLOCK_SKEW) => Err(ClaimsError::NotYet(nbf.saturating_sub(now))),
            _ if self.iat > now.saturating_add(CLOCK_SKEW) => Err(ClaimsError::NotYet(self.iat.saturating_sub(now))),
            _ => Ok(()),
        }
    }
}

/// NATS says in a token what it is (`user`, `account`, …), and those that issue workloads' claims sign such tokens too. Claims of
/// workloads say nothing there.
fn refuse_other_kinds(body: &str) -> Result<(), ClaimsError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Kind {
        r#type: Option<serde_json::Value>,
        nats: KindOfBody,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct KindOfBody {
        r#type: Option<serde_json::Value>,
    }
    let kind: Kind = decode_part(body)?;
    match kind.nats.r#type.or(kind.r#type) {
        None => Ok(()),
        Some(_) => {
            Err(ClaimsError::Malformed("it is a token of NATS (its claims have a type), not one of a workload".to_owned()))
        }
    }
}

fn decode_part<T: DeserializeOwned>(part: &str) -> Result<T, ClaimsError> {
    let bytes = BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|e| ClaimsError::Malformed(e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|e| ClaimsError::Malformed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_signed_token_is_read_back_and_a_changed_one_refused() {
        let issuer = KeyPair::new_account();
        let claims = Claims::to_start("echo", &issuer, &Digest::of(b"x"), 1_000, 60);
        let token = sign(&claims, &issuer).unwrap();
        assert_eq!(Claims::decode(&token), Ok(claims.clone()));
        let other = sign(&Claims { sub: "other".into(), ..claims }, &KeyPair::new_account()).unwrap();
        assert_eq!(Claims::decode(&other), Err(ClaimsError::Signature));
        assert!(matches!(Claims::decode("a.b"), Err(ClaimsError::Malformed(_))));
    }

    #[test]
    fn times_are_judged_with_a_minute_of_skew_into_the_future_only() {
        let claims = Claims::to_start("echo", &KeyPair::new_account(), &Digest::of(b"x"), 1_000, 60);
        assert_eq!(claims.check_times(1_059), Ok(()));
        assert_eq!(claims.check_times(1_060), Err(ClaimsError::Expired(0)));
        assert_eq!(claims.check_times(950), Ok(()));
        assert_eq!(claims.check_times(900), Err(ClaimsError::NotYet(100)));
    }

    #[test]
    fn a_user_of_nats_is_no_workload() {
        let account = KeyPair::new_account();
        let (user, claims) = (KeyPair::new_user().public_key(), Claims::to_start("x", &account, &Digest::of(b"x"), 1_000, 60));
        for (at, kind) in [("/nats", "user"), ("/nats", "account"), ("/nats", "activation"), ("", "user")] {
            let mut token = serde_json::to_value(Claims { sub: user.clone(), ..claims.clone() }).unwrap();
            token.pointer_mut(at).unwrap()["type"] = kind.into();
            assert!(matches!(Claims::decode(&sign(&token, &account).unwrap()), Err(ClaimsError::Malformed(_))), "{kind}");
        }
    }

    #[test]
    fn bound_claims_are_good_where_they_are_bound_to() {
        let node: NodeId = KeyPair::new_server().public_key().parse().unwrap();
        let (here, issuer) = ("acme".parse::<Namespace>().unwrap(), KeyPair::new_account());
        let free = Claims::to_start("x", &issuer, &Digest::of(b"x"), 1_000, 60);
        let bound = free.clone().bound_to_request(&node, &here, Digest::of(b"request"));
        let place = Place { node: &node, nexus: "nexus", namespace: "acme" };
        assert!(bound.is_bound_to_a_place() && !free.is_bound_to_a_place());
        assert_eq!((bound.check_place(place), free.check_place(place)), (Ok(()), Ok(())));
        let other: NodeId = KeyPair::new_server().public_key().parse().unwrap();
        assert_eq!(bound.check_place(Place { node: &other, ..place }), Err(ClaimsError::Elsewhere("node")));
        assert_eq!(bound.check_place(Place { namespace: "Acme", ..place }), Err(ClaimsError::Elsewhere("namespace")));
        let of_group = Claims { aud: Some("nexus:nexus".into()), ..bound };
        assert_eq!(of_group.check_place(Place { node: &other, ..place }), Ok(()));
        assert!(of_group.check_place(Place { nexus: "other", ..place }).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(text in "[A-Za-z0-9_.-]{0,200}") {
            drop(Claims::decode(&text));
        }
    }
}
