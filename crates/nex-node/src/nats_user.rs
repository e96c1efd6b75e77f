//! Users of NATS that a node makes with an account's key: agents on the internal bus, services on the user's NATS.

use nex_protocol::claims::{new_jti, sign};
use nkeys::KeyPair;
use serde_json::{Value, json};

/// Who signs for an account.
#[derive(Clone, Copy)]
pub(crate) struct Signer<'a> {
    /// The account's own key, or one of its signing keys.
    pub(crate) key: &'a KeyPair,
    /// The account's public key, where the key is a signing key.
    pub(crate) account: Option<&'a str>,
}

/// A user: what somebody logs in with.
pub struct NatsUser {
    /// User JWT.
    pub jwt: String,
    /// The user's seed.
    pub seed: String,
}

impl std::fmt::Debug for NatsUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsUser").finish_non_exhaustive()
    }
}

impl NatsUser {
    /// A user with a key of its own and what `nats` says that it may; until then, or for ever.
    pub(crate) fn mint(signer: Signer<'_>, name: &str, (now, until): (i64, Option<i64>), mut nats: Value) -> Self {
        let user = KeyPair::new_user();
        if let (Some(account), Some(members)) = (signer.account, nats.as_object_mut()) {
            members.insert("issuer_account".to_owned(), json!(account));
        }
        let jwt = token(&user.public_key(), name, (now, until), &nats, signer.key);
        Self { jwt, seed: user.seed().unwrap_or_default() }
    }

    /// The credentials file that clients of NATS read.
    #[must_use]
    pub fn credentials(&self) -> String {
        let Self { jwt, seed } = self;
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

/// A JWT of NATS about a key.
pub(crate) fn token(subject: &str, name: &str, (now, until): (i64, Option<i64>), nats: &Value, signer: &KeyPair) -> String {
    let mut claims =
        json!({"jti": new_jti(), "iat": now, "iss": signer.public_key(), "sub": subject, "name": name, "nats": nats});
    if let (Some(until), Some(members)) = (until, claims.as_object_mut()) {
        members.insert("exp".to_owned(), json!(until));
    }
    sign(&claims, signer).unwrap_or_default()
}
