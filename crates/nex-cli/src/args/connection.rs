//! Flags about the connection, for every command.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use clap_complete::engine::ArgValueCompleter;
use nex_bus::denials::Denials;
use nex_bus::settings::{ConnectionSettings, Secret, split_servers};
use nex_bus::{context, context::ContextError, local_context};
use nex_protocol::id::Namespace;

use super::used::Used;
use crate::check;
use crate::complete;
use crate::env::Env;

/// Flags that have a variable each, so that one has to ask where their values are from.
pub(super) const FLAGS: [&str; 11] =
    ["server", "context", "namespace", "user", "password", "token", "creds", "nkey", "tlscert", "tlskey", "tlsca"];

/// Those of which one is enough to say who connects.
const CREDENTIALS: [&str; 5] = ["user", "password", "token", "creds", "nkey"];

/// How to reach NATS. With none of them the context selected in the NATS CLI is used, or else the local server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// What the server does not permit this command; nothing that is given.
    #[arg(skip)]
    pub(crate) denials: Denials,
    /// The flags that stand on the command line, and not in a variable.
    #[arg(skip)]
    pub(super) typed: Vec<&'static str>,
    /// What was connected with, once that is known; nothing that is given.
    #[arg(skip)]
    pub(super) used: OnceLock<Used>,
    /// Server URLs, comma separated [default: the selected NATS context, or nats://127.0.0.1:4222]
    #[arg(long, short, global = true, value_name = "URLS", env = "NATS_URL", hide_env_values = true)]
    pub(crate) server: Option<String>,
    /// NATS context: a name, or the path of its file; flags beside it win over what is in it, NATS_* variables do not
    #[arg(long, global = true, value_name = "NAME", env = "NATS_CONTEXT", hide_env_values = true, add = ArgValueCompleter::new(complete::contexts))]
    pub(crate) context: Option<String>,
    /// User name; without a password it is sent as a token
    #[arg(long, global = true, env = "NATS_USER", hide_env_values = true)]
    pub(crate) user: Option<Secret>,
    /// Password of the user
    #[arg(long, global = true, env = "NATS_PASSWORD", hide_env_values = true)]
    pub(crate) password: Option<Secret>,
    /// Token
    #[arg(long, global = true, env = "NATS_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<Secret>,
    /// Credentials file: user JWT and seed
    #[arg(long, global = true, value_name = "FILE", env = "NATS_CREDS", hide_env_values = true)]
    pub(crate) creds: Option<PathBuf>,
    /// File with an nkey seed
    #[arg(long, global = true, value_name = "FILE", env = "NATS_NKEY", hide_env_values = true)]
    pub(crate) nkey: Option<PathBuf>,
    /// Client certificate file
    #[arg(long, global = true, value_name = "FILE", env = "NATS_CERT", hide_env_values = true)]
    pub(crate) tlscert: Option<PathBuf>,
    /// Key file of the client certificate
    #[arg(long, global = true, value_name = "FILE", env = "NATS_KEY", hide_env_values = true)]
    pub(crate) tlskey: Option<PathBuf>,
    /// Root certificates file
    #[arg(long, global = true, value_name = "FILE", env = "NATS_CA", hide_env_values = true)]
    pub(crate) tlsca: Option<PathBuf>,
    /// Begin with the TLS handshake, before the server speaks
    #[arg(long, global = true)]
    pub(crate) tlsfirst: bool,
    /// JetStream domain of the artifacts
    #[arg(long, global = true, value_name = "DOMAIN")]
    pub(crate) jsdomain: Option<String>,
    /// Prefix of reply subjects
    #[arg(long = "inbox-prefix", global = true, value_name = "SUBJECT")]
    pub(crate) inbox_prefix: Option<String>,
    /// Name of the connection, as the server lists it
    #[arg(long = "conn-name", global = true, value_name = "NAME", default_value = concat!("nex-", env!("CARGO_PKG_VERSION")))]
    pub(crate) conn_name: String,
    /// Longest wait for answers [default: 2s; 30s to deploy, stop or call]
    #[arg(long, global = true, value_name = "TIME", env = "NATS_TIMEOUT", hide_env_values = true, value_parser = check::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Namespace of the workloads
    #[arg(long, global = true, value_name = "NAME", env = "NEX_NAMESPACE", hide_env_values = true, default_value = "default", add = ArgValueCompleter::new(complete::namespaces))]
    pub(crate) namespace: Namespace,
}

impl ConnectionArgs {
    /// Notes which flags stand on the command line: they win over a named context, as in the NATS CLI.
    pub(crate) fn note_typed(&mut self, matches: &ArgMatches) {
        let is_typed = |flag: &&str| matches.value_source(flag) == Some(ValueSource::CommandLine);
        self.typed = FLAGS.into_iter().filter(is_typed).collect();
    }

    /// Resolves the settings: the flags over the named context, else the flags and variables over the selected one, else the local server.
    pub(crate) fn settings(&self, env: &Env) -> Result<ConnectionSettings, ContextError> {
        let from_context = match self.named_context() {
            Some(name) => Some(context::load(name, &env.directories)?),
            None => self.selected(env)?.map(|(_, settings)| settings),
        };
        let mut settings = from_context.map_or_else(|| self.flag_settings(), |context| self.given_over(context));
        if self.has_no_credentials()
            && !settings.has_credentials()
            && let Some(local) = local_context::find(&settings.servers, &env.directories)
        {
            // The server of `nex up`: whoever started it has its key.
            settings.nkey_file = local.nkey_file;
            settings.inbox_prefix = settings.inbox_prefix.or(local.inbox_prefix);
        }
        settings.name = Some(self.conn_name.clone());
        settings.jetstream_domain = self.jsdomain.clone().or(settings.jetstream_domain);
        self.note_used(&settings, env);
        Ok(settings)
    }

    /// The context that a flag or variable names. An empty variable counts as absent.
    pub(super) fn named_context(&self) -> Option<&str> {
        self.context.as_deref().filter(|name| !name.is_empty())
    }

    /// The context that is selected in the NATS CLI, if that one counts: it may be unreadable where a server is named, and that of `nex up`
    /// is for its own server only.
    pub(super) fn selected(&self, env: &Env) -> Result<Option<(String, ConnectionSettings)>, ContextError> {
        let found = context::selected(&env.directories).and_then(|name| {
            name.map(|name| context::load(&name, &env.directories).map(|settings| (name, settings))).transpose()
        });
        if !self.is_given("server") {
            return found;
        }
        let is_of_nex_up = |settings: &ConnectionSettings| {
            local_context::find(&settings.servers, &env.directories).is_some_and(|own| own.nkey_file == settings.nkey_file)
        };
        Ok(found.ok().flatten().filter(|(_, settings)| !is_of_nex_up(settings)))
    }

    /// Whether a flag stands over what a context says: one that is typed always does, a variable where no context is named.
    pub(super) fn is_given(&self, flag: &str) -> bool {
        let is_set = |text: Option<&OsStr>| text.is_some_and(|text| !text.is_empty());
        let secret = |secret: &Option<Secret>| secret.as_ref().is_some_and(|secret| !secret.expose().is_empty());
        let file = |path: &Option<PathBuf>| is_set(path.as_deref().map(Path::as_os_str));
        let is_in_variable = || match flag {
            "server" => is_set(self.server.as_deref().map(OsStr::new)),
            "user" => secret(&self.user),
            "password" => secret(&self.password),
            "token" => secret(&self.token),
            "creds" => file(&self.creds),
            "nkey" => file(&self.nkey),
            "tlscert" => file(&self.tlscert),
            "tlskey" => file(&self.tlskey),
            "tlsca" => file(&self.tlsca),
            _ => false,
        };
        self.typed.contains(&flag) || (self.named_context().is_none() && is_in_variable())
    }

    /// Settings of a context with what is given over them; credentials are taken from one of the two.
    fn given_over(&self, mut settings: ConnectionSettings) -> ConnectionSettings {
        let flags = self.flag_settings();
        let is_given = |names: &[&str]| names.iter().any(|name| self.is_given(name));
        if is_given(&CREDENTIALS) {
            // A password alone is one for the context's user.
            let user = if is_given(&["user", "token", "creds", "nkey"]) { flags.user } else { settings.user };
            settings = ConnectionSettings {
                servers: settings.servers,
                tls_cert: settings.tls_cert,
                tls_key: settings.tls_key,
                tls_ca: settings.tls_ca,
                tls_first: settings.tls_first,
                jetstream_domain: settings.jetstream_domain,
                inbox_prefix: settings.inbox_prefix,
                user,
                password: flags.password,
                token: flags.token,
                credentials_file: flags.credentials_file,
                nkey_file: flags.nkey_file,
                ..ConnectionSettings::default()
            };
        }
        if is_given(&["server"]) {
            settings.servers = flags.servers;
        }
        if is_given(&["tlscert", "tlskey"]) {
            (settings.tls_cert, settings.tls_key) = (flags.tls_cert, flags.tls_key);
        }
        settings.tls_ca = flags.tls_ca.filter(|_| is_given(&["tlsca"])).or(settings.tls_ca);
        settings.tls_first |= flags.tls_first;
        settings.inbox_prefix = flags.inbox_prefix.or(settings.inbox_prefix);
        settings
    }

    fn has_no_credentials(&self) -> bool {
        self.user.is_none()
            && self.token.is_none()
            && [&self.creds, &self.nkey, &self.tlscert, &self.tlsca].into_iter().all(Option::is_none)
    }

    fn flag_settings(&self) -> ConnectionSettings {
        ConnectionSettings {
            servers: split_servers(self.server.as_deref().unwrap_or_default()),
            user: self.user.as_ref().map(|user| user.expose().to_owned()),
            password: self.password.clone().filter(|password| !password.expose().is_empty()),
            token: self.token.clone(),
            credentials_file: self.creds.clone(),
            nkey_file: self.nkey.clone(),
            tls_cert: self.tlscert.clone(),
            tls_key: self.tlskey.clone(),
            tls_ca: self.tlsca.clone(),
            tls_first: self.tlsfirst,
            server_certificate: None,
            jetstream_domain: self.jsdomain.clone(),
            inbox_prefix: self.inbox_prefix.clone(),
            ..ConnectionSettings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        connection: ConnectionArgs,
    }

    fn settings(flags: &[&str], env: &Env) -> ConnectionSettings {
        let matches = Line::command().try_get_matches_from(["nex"].iter().chain(flags)).unwrap();
        let mut line = Line::from_arg_matches(&matches).unwrap();
        line.connection.note_typed(&matches);
        line.connection.settings(env).unwrap()
    }

    #[test]
    fn flags_beat_contexts_whether_they_are_selected_or_named() {
        let root = tempfile::tempdir().unwrap();
        let contexts = root.path().join("nats/context");
        std::fs::create_dir_all(&contexts).unwrap();
        std::fs::write(contexts.join("one.json"), r#"{"url":"nats://one:1","jetstream_domain":"hub"}"#).unwrap();
        std::fs::write(contexts.join("two.json"), r#"{"url":"nats://two:2","user":"me","password":"pw","ca":"/ca"}"#).unwrap();
        let mut env = Env::default();
        env.directories.config = root.path().to_owned();
        assert_eq!(settings(&[], &env).servers, ["nats://127.0.0.1:4222"]);
        std::fs::write(root.path().join("nats/context.txt"), "one").unwrap();
        let selected = settings(&[], &env);
        assert_eq!((selected.servers[0].as_str(), selected.jetstream_domain.as_deref()), ("nats://one:1", Some("hub")));
        let elsewhere = settings(&["-s", "a, b"], &env);
        assert_eq!((elsewhere.servers.join(" "), elsewhere.jetstream_domain.as_deref()), ("a b".into(), Some("hub")));
        let as_other = settings(&["--user", "me", "--password", "pw"], &env);
        assert_eq!((as_other.servers[0].as_str(), as_other.user.as_deref()), ("nats://one:1", Some("me")));
        let named = settings(&["--context", "two", "--jsdomain", "leaf"], &env);
        assert_eq!((named.servers[0].as_str(), named.jetstream_domain.as_deref()), ("nats://two:2", Some("leaf")));
        assert!(named.name.unwrap().starts_with("nex-"));
        let elsewhere = settings(&["-s", "a", "--context", "two"], &env);
        assert_eq!((elsewhere.servers[0].as_str(), elsewhere.user.as_deref()), ("a", Some("me")), "the rest is the context's");
        let other = settings(&["--context", "two", "--nkey", "seed"], &env);
        assert_eq!((other.servers[0].as_str(), other.user, other.tls_ca), ("nats://two:2", None, Some("/ca".into())));
        assert_eq!(other.nkey_file, Some("seed".into()));
    }

    #[test]
    fn suggested_commands_repeat_the_connection_and_no_secret() {
        let repeated = |flags: &[&str]| {
            let matches = Line::command().try_get_matches_from(["nex"].iter().chain(flags)).unwrap();
            let mut line = Line::from_arg_matches(&matches).unwrap();
            line.connection.note_typed(&matches);
            line.connection.repeated()
        };
        assert_eq!(repeated(&[]), "");
        let all =
            ["-s", "tls://a", "--creds", "my creds", "--tlsca", "/ca", "--tlsfirst", "--jsdomain", "hub", "--namespace", "shop"];
        let expected = " -s tls://a --namespace shop --creds 'my creds' --tlsca /ca --tlsfirst --jsdomain hub";
        assert_eq!(repeated(&all), expected);
        assert_eq!(repeated(&["--user", "me", "--password", "pw"]), " --user me --password <password>");
        assert_eq!(repeated(&["--user", "t0ken"]), " --user <user>", "it is a token");
        assert_eq!(repeated(&["--context", "a b"]), " --context 'a b'");
    }

    #[test]
    fn an_empty_password_makes_the_user_a_token() {
        let settings = settings(&["-s", "a", "--user", "t0ken", "--password", ""], &Env::default());
        assert_eq!((settings.user.as_deref(), settings.password), (Some("t0ken"), None));
    }
}
