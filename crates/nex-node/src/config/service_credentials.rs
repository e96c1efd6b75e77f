//! `service_credentials`: users of NATS that the node makes for services, and what these may do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nex_protocol::id::{Namespace, is_public_key};
use nex_protocol::subject;
use serde::Deserialize;

/// How long credentials are good if nothing is said, the least and the most, ms.
const LIFETIME: u64 = 24 * 3_600 * 1_000;
const MIN_LIFETIME: u64 = 10 * 1_000;
const MAX_LIFETIME: u64 = 365 * LIFETIME;
/// Most subjects of one list.
const MAX_SUBJECTS: usize = 256;
/// Words in braces that stand for something of a workload, each with an example.
const WORDS: [(&str, &str); 3] = [("{namespace}", "namespace"), ("{name}", "name"), ("{workload}", "workload")];

/// `service_credentials`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are the configuration's own")]
pub struct RawServiceCredentials {
    pub key_file: PathBuf,
    pub account: Option<String>,
    pub publish: Option<Vec<String>>,
    pub subscribe: Option<Vec<String>>,
    pub lifetime_ms: Option<u64>,
    pub namespaces: BTreeMap<String, RawServicePermissions>,
}

/// One of `service_credentials.namespaces`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are the configuration's own")]
pub struct RawServicePermissions {
    pub publish: Option<Vec<String>>,
    pub subscribe: Option<Vec<String>>,
}

/// Users that the node makes for services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceCredentialsConfig {
    /// File with the seed of the account, or of one of its signing keys.
    pub key_file: PathBuf,
    /// The account, where the seed is that of a signing key.
    pub account: Option<String>,
    /// What services may do in namespaces that are not named.
    pub usual: ServicePermissions,
    /// What they may do in those that are.
    pub namespaces: BTreeMap<String, ServicePermissions>,
    /// How long credentials are good; they are renewed after half of it.
    pub lifetime: Duration,
}

/// Subjects, with `{namespace}`, `{name}` and `{workload}` for those of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePermissions {
    /// What a service may publish, besides answers to what it is asked.
    pub publish: Vec<String>,
    /// What it may subscribe, besides its inbox and the subject on which its triggers ask it.
    pub subscribe: Vec<String>,
}

/// Resolves it, and says what is wrong.
pub(super) fn resolve(raw: RawServiceCredentials, problems: &mut Vec<String>) -> Option<ServiceCredentialsConfig> {
    const AT: &str = "service_credentials";
    let before = problems.len();
    if !raw.key_file.is_absolute() {
        problems
            .push(format!("{AT}.key_file: '{}' is not the full path of a file with the account's seed", raw.key_file.display()));
    }
    for account in raw.account.iter().filter(|key| !(key.starts_with('A') && is_public_key(key))) {
        let kind = match account.get(..1) {
            Some("U") => ", but a user's",
            Some("O") => ", but an operator's",
            Some("S") => ", but a seed, which belongs into key_file",
            _ => "",
        };
        // A seed is not repeated.
        problems.push(format!("{AT}.account: this is not the public key of an account (A and 55 letters and digits){kind}"));
    }
    let lifetime = raw.lifetime_ms.unwrap_or(LIFETIME);
    if !(MIN_LIFETIME..=MAX_LIFETIME).contains(&lifetime) {
        problems.push(format!("{AT}.lifetime_ms: expected {MIN_LIFETIME} to {MAX_LIFETIME}"));
    }
    let own = || vec!["{namespace}.>".to_owned()];
    let usual = ServicePermissions { publish: raw.publish.unwrap_or_else(own), subscribe: raw.subscribe.unwrap_or_else(own) };
    usual.check(AT, problems);
    let mut namespaces = BTreeMap::new();
    for (namespace, RawServicePermissions { publish, subscribe }) in raw.namespaces {
        let at = format!("{AT}.namespaces.{namespace}");
        if namespace.parse::<Namespace>().is_err() {
            problems.push(format!("{AT}.namespaces: '{namespace}' is not a namespace"));
        }
        let permissions = ServicePermissions {
            publish: publish.unwrap_or_else(|| usual.publish.clone()),
            subscribe: subscribe.unwrap_or_else(|| usual.subscribe.clone()),
        };
        permissions.check(&at, problems);
        namespaces.insert(namespace, permissions);
    }
    let lifetime = Duration::from_millis(lifetime);
    (problems.len() == before).then_some(ServiceCredentialsConfig {
        key_file: raw.key_file,
        account: raw.account,
        usual,
        namespaces,
        lifetime,
    })
}

impl ServiceCredentialsConfig {
    /// What services of a namespace may do.
    #[must_use]
    pub fn of(&self, namespace: &Namespace) -> &ServicePermissions {
        self.namespaces.get(namespace.as_str()).unwrap_or(&self.usual)
    }
}

impl ServicePermissions {
    fn check(&self, at: &str, problems: &mut Vec<String>) {
        for (which, subjects) in [("publish", &self.publish), ("subscribe", &self.subscribe)] {
            if subjects.len() > MAX_SUBJECTS {
                problems.push(format!("{at}.{which}: there are more than {MAX_SUBJECTS} subjects"));
            }
            for subject in subjects {
                let example = WORDS.iter().fold(subject.clone(), |text, (word, example)| text.replace(word, example));
                if example.contains(['{', '}']) {
                    let words = WORDS.map(|(word, _)| word).join(", ");
                    problems.push(format!("{at}.{which}: '{subject}' has a word in braces that is none of {words}"));
                } else if !subject::is_valid_pattern(&example) {
                    problems.push(format!("{at}.{which}: '{subject}' is not a subject"));
                }
            }
        }
    }
}

/// The subjects of a service. One whose first token is a name that somebody chose is left out where that is a token that is not for
/// everybody: whoever deploys chooses namespaces and names.
pub(crate) fn expand(subjects: &[String], of_workload: [&str; 3]) -> Vec<String> {
    let is_reserved = |token: &str| token == "nex" || token.starts_with(['_', '$']);
    let expanded = subjects.iter().filter_map(|subject| {
        let text = WORDS.iter().zip(of_workload).fold(subject.clone(), |text, ((word, _), own)| text.replace(word, own));
        let first = text.split('.').next().unwrap_or_default();
        let is_chosen = subject.split('.').next().unwrap_or_default().contains('{');
        (!(is_chosen && is_reserved(first))).then_some(text)
    });
    expanded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NodeConfig, RawConfig};

    fn config(text: &str) -> Result<Option<ServiceCredentialsConfig>, String> {
        let raw = RawConfig::parse(&format!(r#"{{"service_credentials":{text}}}"#)).map_err(|error| error.to_string())?;
        NodeConfig::resolve(raw).map(|config| config.service_credentials).map_err(|error| error.to_string())
    }

    #[test]
    fn it_has_defaults_for_all_but_the_key() {
        let found = config(r#"{"key_file":"/k","namespaces":{"a":{"publish":[]}}}"#).unwrap().unwrap();
        assert_eq!((found.lifetime.as_secs(), found.account.as_deref()), (86_400, None));
        assert_eq!(found.of(&"b".parse().unwrap()).publish, ["{namespace}.>"]);
        let named = found.of(&"a".parse().unwrap());
        assert_eq!((named.publish.len(), named.subscribe.as_slice()), (0, &["{namespace}.>".to_owned()][..]));
        assert_eq!(NodeConfig::default().service_credentials, None);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_a_seed_is_not_repeated() {
        let user = nkeys::KeyPair::new_user();
        let (public, seed) = (user.public_key(), user.seed().unwrap());
        for (text, expected) in [
            ("{}".to_owned(), "service_credentials.key_file"),
            (r#"{"key_file":"k"}"#.to_owned(), "'k' is not the full path"),
            (
                format!(r#"{{"key_file":"/k","account":"{public}"}}"#),
                "service_credentials.account: this is not the public key of an account",
            ),
            (format!(r#"{{"key_file":"/k","account":"{seed}"}}"#), "but a seed"),
            (r#"{"key_file":"/k","lifetime_ms":1}"#.to_owned(), "service_credentials.lifetime_ms"),
            (r#"{"key_file":"/k","publish":["a b"]}"#.to_owned(), "service_credentials.publish: 'a b'"),
            (r#"{"key_file":"/k","subscribe":["{user}.x"]}"#.to_owned(), "none of {namespace}, {name}, {workload}"),
            (r#"{"key_file":"/k","namespaces":{"a.b":{}}}"#.to_owned(), "'a.b' is not a namespace"),
            (
                r#"{"key_file":"/k","namespaces":{"a":{"publish":["x..y"]}}}"#.to_owned(),
                "service_credentials.namespaces.a.publish",
            ),
            (r#"{"key_file":"/k","sub":[]}"#.to_owned(), "unknown field `sub`"),
        ] {
            let said = config(&text).unwrap_err();
            assert!(said.contains(expected) && !said.contains(&seed), "{text}: {said}");
        }
    }

    #[test]
    fn a_name_that_somebody_chose_opens_nothing_that_is_reserved() {
        let subjects = ["{namespace}.>", "x.{namespace}.{name}", "{name}.{workload}", "_INBOX.>"].map(str::to_owned);
        assert_eq!(expand(&subjects, ["ns", "n", "w"]), ["ns.>", "x.ns.n", "n.w", "_INBOX.>"]);
        for namespace in ["nex", "_INBOX", "_"] {
            assert_eq!(expand(&subjects, [namespace, "_R_", "w"]), [format!("x.{namespace}._R_"), "_INBOX.>".to_owned()]);
        }
    }
}
