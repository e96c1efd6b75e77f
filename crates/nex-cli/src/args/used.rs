//! What a command was connected with, for people: what is said when it fails, and the flags that a suggested command repeats.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use nex_bus::settings::ConnectionSettings;
use serde_json::{Value, json};

use super::connection::{ConnectionArgs, FLAGS};
use crate::env::Env;

/// What a command was connected with. No secret is in it.
#[derive(Debug, Clone)]
pub(crate) struct Used {
    source: String,
    servers: String,
    user: String,
    /// The flags that a suggested command repeats.
    repeated: String,
}

/// Commands that ask no NATS, or are for a server to be started.
const LOCAL: [&str; 8] = ["up", "new", "issuer", "help", "completion", "rootfs", "node up", "node stop"];

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}; {}", self.source, self.servers, self.user)
    }
}

impl Used {
    /// An advice whose commands reach the same workloads when they are pasted.
    pub(crate) fn in_full(&self, advice: &str) -> String {
        let mut parts = advice.split("`nex ");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| {
            let is_local = LOCAL.iter().any(|word| part.strip_prefix(word).is_some_and(|rest| rest.starts_with(['`', ' '])));
            let repeated = if is_local { "" } else { &self.repeated };
            format!("{text}`nex{repeated} {part}")
        })
    }

    /// For programs.
    pub(crate) fn as_json(&self) -> Value {
        json!({ "source": self.source, "servers": self.servers, "user": self.user })
    }
}

impl ConnectionArgs {
    /// What was connected with, once the settings are resolved.
    pub(crate) fn used(&self) -> Option<&Used> {
        self.used.get()
    }

    pub(super) fn note_used(&self, settings: &ConnectionSettings, env: &Env) {
        let (servers, repeated) = (settings.shown_servers(), self.repeated());
        let used = Used { source: self.source(env), servers, user: user(settings), repeated };
        // Who resolves them again comes to the same.
        drop(self.used.set(used));
    }

    /// By what the connection is chosen.
    pub(crate) fn source(&self, env: &Env) -> String {
        let name_of = |flag: &'static str| match self.typed.contains(&flag) {
            true => format!("--{flag}"),
            false => variable(flag),
        };
        let is_over = |flag: &&&str| !matches!(**flag, "context" | "namespace") && self.is_given(flag);
        let over: Vec<String> = FLAGS.iter().filter(is_over).map(|flag| name_of(flag)).collect();
        let over = if over.is_empty() { String::new() } else { format!(", under {}", over.join(", ")) };
        if let Some(name) = self.named_context() {
            let by = if self.typed.contains(&"context") { "--context" } else { "the variable NATS_CONTEXT" };
            return format!("context {name}, named by {by}{over}");
        }
        match self.selected(env) {
            Ok(Some((name, _))) => format!("context {name}, which is selected{over}"),
            _ if self.typed.contains(&"server") => "server named by --server".to_owned(),
            _ if self.is_given("server") => "server named by the variable NATS_URL".to_owned(),
            _ if !over.is_empty() => "flags and variables".to_owned(),
            Ok(None) | Err(_) => "the local server: no flag, no variable and no selected context says otherwise".to_owned(),
        }
    }

    /// The flags that a command has to repeat to reach the same workloads, each after a blank. Secrets are not repeated: their place is shown.
    pub(crate) fn repeated(&self) -> String {
        let text = |flag: &str| -> Option<String> {
            let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
            let value = match flag {
                "server" => self.server.clone(),
                "context" => self.context.clone(),
                "namespace" => Some(self.namespace.to_string()),
                "creds" => path(&self.creds),
                "nkey" => path(&self.nkey),
                "tlscert" => path(&self.tlscert),
                "tlskey" => path(&self.tlskey),
                "tlsca" => path(&self.tlsca),
                // A user without a password is a token.
                "user" => self.password.as_ref().and(self.user.as_ref()).map(|user| user.expose().to_owned()),
                _ => None,
            }?;
            shlex::try_quote(&value).ok().map(Cow::into_owned)
        };
        let flag = |flag: &&str| match text(flag) {
            Some(value) if *flag == "server" => format!(" -s {value}"),
            Some(value) => format!(" --{flag} {value}"),
            None => format!(" --{flag} <{flag}>"),
        };
        let mut repeated: String = FLAGS.iter().filter(|flag| self.typed.contains(flag)).map(flag).collect();
        if self.tlsfirst {
            repeated.push_str(" --tlsfirst");
        }
        for (flag, value) in [("jsdomain", &self.jsdomain), ("inbox-prefix", &self.inbox_prefix)] {
            let value = value.as_ref().and_then(|value| shlex::try_quote(value).ok());
            repeated.extend(value.map(|value| format!(" --{flag} {value}")));
        }
        repeated
    }
}

/// The variable of a flag.
fn variable(flag: &str) -> String {
    let name = match flag {
        "server" => "URL",
        "tlscert" => "CERT",
        "tlskey" => "KEY",
        "tlsca" => "CA",
        other => return format!("NATS_{}", other.to_uppercase()),
    };
    format!("NATS_{name}")
}

/// As whom, as far as that may be shown.
fn user(settings: &ConnectionSettings) -> String {
    if let Some(file) = &settings.credentials_file {
        return format!("credentials {}", file.display());
    }
    if let Some(file) = &settings.nkey_file {
        return format!("nkey {}", file.display());
    }
    match (&settings.user, &settings.password, &settings.token) {
        (Some(user), Some(_), _) => format!("user {user}"),
        // A user without a password is a token.
        (Some(_), None, _) | (None, _, Some(_)) => "a token".to_owned(),
        (None, _, None) if settings.user_jwt.is_some() => "credentials of the context".to_owned(),
        (None, _, None) => match settings.servers.iter().find_map(|url| in_url(url)) {
            Some(user) => format!("user {user}"),
            None => "no user".to_owned(),
        },
    }
}

/// The user in a URL, if a password is beside it.
fn in_url(url: &str) -> Option<&str> {
    let (user, _) = url.split_once("://").map_or(url, |(_, rest)| rest).rsplit_once('@')?;
    user.split_once(':').map(|(user, _)| user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_an_advice_repeat_the_flags_unless_they_ask_no_nats() {
        let used = Used { source: String::new(), servers: String::new(), user: String::new(), repeated: " -s a".into() };
        let advice = "see `nex ps`, `nex node ls`, or start one (`nex up`, `nex node up --fresh`)";
        let expected = "see `nex -s a ps`, `nex -s a node ls`, or start one (`nex up`, `nex node up --fresh`)";
        assert_eq!(used.in_full(advice), expected);
        assert_eq!(used.in_full("check the path"), "check the path");
    }

    #[test]
    fn who_connects_is_told_without_what_is_secret() {
        let of = |change: fn(&mut ConnectionSettings)| {
            let mut settings = ConnectionSettings::default();
            change(&mut settings);
            user(&settings)
        };
        assert_eq!(of(|_| {}), "no user");
        assert_eq!(of(|it| it.user = Some("t0ken".into())), "a token");
        assert_eq!(of(|it| it.token = Some("t0ken".into())), "a token");
        assert_eq!(of(|it| (it.user, it.password) = (Some("me".into()), Some("pw".into()))), "user me");
        assert_eq!(of(|it| it.servers = vec!["nats://me:pw@a".into()]), "user me");
        assert_eq!(of(|it| it.servers = vec!["nats://t0ken@a".into()]), "no user");
        assert_eq!(of(|it| it.nkey_file = Some("/k".into())), "nkey /k");
    }
}
