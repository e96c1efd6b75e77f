//! Users of the user's NATS that the node makes for services, with the key of an account: each service has one of its own, which may do what
//! the configuration says of its namespace (`service_credentials`).
//!
//! Credentials expire, for nobody here can revoke them: a list of revocations is in the account's JWT, which the operator's key signs. They
//! are renewed in their file long before. Their seed is in no log, journal or answer of the node.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use futures::StreamExt as _;
use nex_bus::connect::{ConnectError, connect_with};
use nex_bus::denials::{Action, Denials};
use nex_bus::settings::ConnectionSettings;
use nex_protocol::envelope::chain;
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};

use crate::clock;
use crate::config::{ServiceCredentialsConfig, expand};
use crate::nats_user::{NatsUser, Signer};
use crate::workload::spec::WorkloadSpec;

/// Largest file of a key that is read, bytes.
const MAX_BYTES: u64 = 64 * 1024;
/// Rights of others that a key file must not give.
const OTHERS: u32 = 0o077;
/// A service answers once to each request, within ten minutes: far over the longest call.
const ANSWER_NANOS: u64 = 600_000_000_000;
/// Longest trial.
const TRIAL: Duration = Duration::from_secs(10);
/// A subject that the user of a trial may not subscribe. It ends as those do of which no denial is logged.
const FORBIDDEN: &str = "nex.preflight.nex-fence";

/// Why a node makes no users for services.
#[derive(Debug, thiserror::Error)]
pub enum ServiceUsersError {
    /// Its file.
    #[error("service_credentials.key_file: cannot read {path}; next: check the path, and that the node's user may read it")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others could make users as well.
    #[error("service_credentials.key_file: others than its owner may use {0}; next: chmod 600 {0}")]
    Open(PathBuf),
    /// It has no seed.
    #[error(
        "service_credentials.key_file: {0} holds no seed of an account; next: write its seed there, or a signing key's, which begins with SA"
    )]
    NoSeed(PathBuf),
    /// It has another seed.
    #[error(
        "service_credentials.key_file: {path} holds the seed of {kind}, which makes no users; next: write that of an account or of its signing \
         key there, which begins with SA"
    )]
    Kind {
        /// The file.
        path: PathBuf,
        /// Whose seed it is.
        kind: &'static str,
    },
    /// The server knows no such account, or no such key of it.
    #[error("service_credentials: the NATS server refuses users of account {account} that {key} signs; next: {next}")]
    Refused {
        /// The account.
        account: String,
        /// Public key of the signer.
        key: String,
        /// What may be wrong.
        next: &'static str,
    },
    /// It takes anybody.
    #[error(
        "service_credentials: the NATS server does not keep the users that the node makes to their permissions; next: run it with the account's \
         JWT (operator mode), or leave service_credentials out"
    )]
    Unchecked,
    /// The trial did not get that far.
    #[error("service_credentials: the users that the node makes cannot be tried")]
    Connect(#[source] ConnectError),
    /// The trial had no answer.
    #[error(
        "service_credentials: the NATS server did not say whether it keeps users to their permissions; next: look at its log and its load"
    )]
    Silent,
}

/// Makes users. Cheap to clone.
#[derive(Clone)]
pub struct ServiceUsers {
    key: Arc<KeyPair>,
    config: Arc<ServiceCredentialsConfig>,
}

impl std::fmt::Debug for ServiceUsers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceUsers").field("key", &self.key.public_key()).field("config", &self.config).finish()
    }
}

/// What a service gets.
pub(crate) struct ServiceUser {
    /// The file that it finds as `NATS_CREDS`.
    pub(crate) credentials: String,
    /// Prefix of its inboxes.
    pub(crate) inbox_prefix: String,
    /// When it is to have another one, seconds since 1970.
    pub(crate) renew_at: i64,
}

impl ServiceUsers {
    /// Reads the key that the configuration names.
    ///
    /// # Errors
    /// [`ServiceUsersError`], for a key that makes no users.
    pub fn load(config: &ServiceCredentialsConfig) -> Result<Self, ServiceUsersError> {
        let key = account_key(&config.key_file)?;
        Ok(Self { key: Arc::new(key), config: Arc::new(config.clone()) })
    }

    /// Public key of the account whose users it makes.
    #[must_use]
    pub fn account(&self) -> String {
        self.config.account.clone().unwrap_or_else(|| self.key.public_key())
    }

    /// A new user for a service.
    pub(crate) fn mint(&self, spec: &WorkloadSpec) -> ServiceUser {
        let lifetime = i64::try_from(self.config.lifetime.as_secs()).unwrap_or(i64::MAX / 2);
        let (now, inbox_prefix) = (clock::unix_seconds(), format!("_INBOX_{}", spec.id));
        let permissions = self.config.of(&spec.namespace);
        let words = [spec.namespace.as_str(), spec.name.as_str(), spec.id.as_str()];
        let publish = expand(&permissions.publish, words);
        let mut subscribe = expand(&permissions.subscribe, words);
        subscribe.extend([spec.service_subject(), format!("{inbox_prefix}.>")]);
        let name = format!("nex {}.{} {}", spec.namespace, spec.name, spec.id);
        let user = self.user(&name, (now, now.saturating_add(lifetime)), (&publish, &subscribe));
        ServiceUser { credentials: user.credentials(), inbox_prefix, renew_at: now.saturating_add(lifetime / 2) }
    }

    fn user(&self, name: &str, (now, until): (i64, i64), (publish, subscribe): (&[String], &[String])) -> NatsUser {
        let signer = Signer { key: &self.key, account: self.config.account.as_deref() };
        let answers = json!({"max": 1, "ttl": ANSWER_NANOS});
        let nats = json!({
            "type": "user", "version": 2, "pub": only(publish), "sub": only(subscribe), "resp": answers, "subs": -1, "data": -1, "payload": -1,
        });
        NatsUser::mint(signer, name, (now, Some(until)), nats)
    }

    /// Logs in on the node's servers as such a user, and sees whether it is kept to what it may.
    ///
    /// # Errors
    /// [`ServiceUsersError`].
    pub async fn try_on(&self, node: &ConnectionSettings) -> Result<(), ServiceUsersError> {
        let (now, inbox) = (clock::unix_seconds(), "_INBOX_nex_preflight".to_owned());
        let own = [format!("{inbox}.>")];
        let user = self.user("nex preflight", (now, now + 60), (&own, &own));
        let denials = Denials::default();
        let client = match Box::pin(connect_with(&settings_of(node, user, inbox), &denials)).await {
            Ok(client) => client,
            Err(ConnectError::Refused { .. }) => return Err(self.refused()),
            Err(error) => return Err(ServiceUsersError::Connect(error)),
        };
        // Either is told, whoever is slow: that it is denied, or what arrives where it was not.
        let refused = denials.next(|denial| denial.action == Action::Subscribe && denial.subject == FORBIDDEN);
        tokio::select! {
            _denial = refused => Ok(()),
            () = heard(&client, FORBIDDEN) => Err(ServiceUsersError::Unchecked),
            () = tokio::time::sleep(TRIAL) => Err(ServiceUsersError::Silent),
        }
    }

    fn refused(&self) -> ServiceUsersError {
        let next = match self.config.account {
            None => {
                "if it is a signing key, name its account in service_credentials.account; else see that the server knows the account"
            }
            Some(_) => {
                "see that service_credentials.account has this signing key, without a scope, and that the server knows the account"
            }
        };
        ServiceUsersError::Refused { account: self.account(), key: self.key.public_key(), next }
    }
}

/// Tries the users at the start of a node: that they are refused, or not kept to their permissions, is known at once.
///
/// # Errors
/// [`ServiceUsersError::Refused`], [`ServiceUsersError::Unchecked`].
pub(crate) async fn try_at_start(users: Option<&ServiceUsers>, node: &ConnectionSettings) -> Result<(), ServiceUsersError> {
    let Some(users) = users else { return Ok(()) };
    match users.try_on(node).await {
        Err(error @ (ServiceUsersError::Connect(_) | ServiceUsersError::Silent)) => {
            tracing::warn!(error = %chain(&error), "the users of services could not be tried");
            Ok(())
        }
        tried => tried,
    }
}

/// Returns when what is published there was heard there; never, where it may not be.
async fn heard(client: &Client, subject: &'static str) {
    if let Ok(mut messages) = client.subscribe(subject).await
        && client.publish(subject, "".into()).await.is_ok()
        && messages.next().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Nothing but these subjects; an empty list would be all of them.
fn only(subjects: &[String]) -> Value {
    if subjects.is_empty() { json!({"deny": [">"]}) } else { json!({"allow": subjects}) }
}

/// The node's servers, as somebody else.
fn settings_of(node: &ConnectionSettings, user: NatsUser, inbox_prefix: String) -> ConnectionSettings {
    let without_user = |url: &String| match url.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, address)| address)),
        None => url.rsplit_once('@').map_or(url.as_str(), |(_, address)| address).to_owned(),
    };
    ConnectionSettings {
        servers: node.servers.iter().map(without_user).collect(),
        user_jwt: Some(user.jwt.into()),
        user_seed: Some(user.seed.into()),
        name: Some("nex-preflight".to_owned()),
        inbox_prefix: Some(inbox_prefix),
        tls_cert: node.tls_cert.clone(),
        tls_key: node.tls_key.clone(),
        tls_ca: node.tls_ca.clone(),
        tls_first: node.tls_first,
        ..ConnectionSettings::default()
    }
}

/// The seed of an account in a file that nobody else reads. No part of it is ever shown.
fn account_key(path: &Path) -> Result<KeyPair, ServiceUsersError> {
    let read = |source| ServiceUsersError::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(read)?;
    if file.metadata().map_err(read)?.mode() & OTHERS != 0 {
        return Err(ServiceUsersError::Open(path.to_owned()));
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(read)?;
    let found = text.lines().map(str::trim).find_map(|line| KeyPair::from_seed(line).ok());
    let key = found.ok_or_else(|| match text.lines().any(|line| line.trim().starts_with("SX")) {
        true => ServiceUsersError::Kind { path: path.to_owned(), kind: "a curve key" },
        false => ServiceUsersError::NoSeed(path.to_owned()),
    })?;
    let kind = match key.key_pair_type() {
        KeyPairType::Account => return Ok(key),
        KeyPairType::User => "a user",
        KeyPairType::Operator => "an operator",
        KeyPairType::Server => "a server",
        KeyPairType::Cluster => "a cluster",
        KeyPairType::Curve => "a curve key",
        KeyPairType::Module | KeyPairType::Service => "another kind of key",
    };
    Err(ServiceUsersError::Kind { path: path.to_owned(), kind })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn load(text: &str, mode: u32) -> Result<ServiceUsers, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        let raw = json!({"service_credentials": {"key_file": file.path()}}).to_string();
        let config = crate::NodeConfig::resolve(crate::RawConfig::parse(&raw).unwrap()).unwrap();
        ServiceUsers::load(&config.service_credentials.unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_that_makes_no_users_is_told_by_its_kind_and_its_seed_is_not_shown() {
        let account = KeyPair::new_account();
        let seed = account.seed().unwrap();
        assert_eq!(load(&format!("# of the shop\n{seed}\n"), 0o600).unwrap().account(), account.public_key());
        assert!(load(&seed, 0o640).unwrap_err().contains("chmod 600"));
        let user = NatsUser { jwt: "a.b.c".into(), seed: KeyPair::new_user().seed().unwrap() };
        for (text, expected) in [
            (user.credentials(), "the seed of a user"),
            (KeyPair::new_operator().seed().unwrap(), "the seed of an operator"),
            (KeyPair::new_server().seed().unwrap(), "the seed of a server"),
            (nkeys::XKey::new().seed().unwrap(), "a curve key"),
            (account.public_key(), "holds no seed of an account"),
            (String::new(), "holds no seed of an account"),
        ] {
            let said = load(&text, 0o600).unwrap_err();
            let seed = text.lines().find(|line| line.starts_with('S')).unwrap_or("SEED");
            assert!(said.contains(expected) && said.contains("; next: ") && !said.contains(seed), "{said}");
        }
        let shown = format!("{:?}", load(&seed, 0o600).unwrap());
        assert!(shown.contains(&account.public_key()) && !shown.contains(&seed), "{shown}");
    }
}
