//! How a connection to NATS is to be made. Nothing here reads a file or the environment; [`crate::connect`] opens the files.

use std::fmt;
use std::path::PathBuf;

/// Where a NATS server listens when nothing else is said.
pub const DEFAULT_SERVER: &str = "nats://127.0.0.1:4222";

/// A text that never prints: `Debug` shows `***`, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Everything that may be said about a connection. Absent members are not used.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Server URLs; one that is reached is enough. A user and password inside a URL are used and never shown.
    pub servers: Vec<String>,
    /// User name; without [`Self::password`] it is sent as a token, as `nex` 0.2.7 did.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// Token.
    pub token: Option<Secret>,
    /// Credentials file: a user JWT and its seed.
    pub credentials_file: Option<PathBuf>,
    /// File with an nkey seed (`SU…`).
    pub nkey_file: Option<PathBuf>,
    /// A user JWT, used together with [`Self::user_seed`].
    pub user_jwt: Option<Secret>,
    /// Seed of [`Self::user_jwt`].
    pub user_seed: Option<Secret>,
    /// Client certificate, used together with [`Self::tls_key`].
    pub tls_cert: Option<PathBuf>,
    /// Key of [`Self::tls_cert`].
    pub tls_key: Option<PathBuf>,
    /// Root certificates.
    pub tls_ca: Option<PathBuf>,
    /// Whether the TLS handshake comes before the server's first line.
    pub tls_first: bool,
    /// The server's own certificate, PEM: no other one is believed, and the TLS handshake comes before anything else.
    pub server_certificate: Option<String>,
    /// JetStream domain.
    pub jetstream_domain: Option<String>,
    /// Name of the connection, as the server lists it.
    pub name: Option<String>,
    /// Prefix of reply subjects, `_INBOX` otherwise.
    pub inbox_prefix: Option<String>,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            servers: vec![DEFAULT_SERVER.to_owned()],
            user: None,
            password: None,
            token: None,
            credentials_file: None,
            nkey_file: None,
            user_jwt: None,
            user_seed: None,
            tls_cert: None,
            tls_key: None,
            tls_ca: None,
            tls_first: false,
            server_certificate: None,
            jetstream_domain: None,
            name: None,
            inbox_prefix: None,
        }
    }
}

impl ConnectionSettings {
    /// The settings for a comma-separated list of server URLs.
    #[must_use]
    pub fn to_servers(list: &str) -> Self {
        Self { servers: split_servers(list), ..Self::default() }
    }

    /// Whether it comes with anything that says who connects.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.user.is_some()
            || self.password.is_some()
            || self.token.is_some()
            || self.credentials_file.is_some()
            || self.nkey_file.is_some()
            || self.user_jwt.is_some()
            || self.user_seed.is_some()
            || self.servers.iter().any(|url| url.contains('@'))
    }

    /// The servers as they may be shown: comma-separated, without user and password.
    #[must_use]
    pub fn shown_servers(&self) -> String {
        self.servers.iter().map(|server| without_user(server)).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Debug for ConnectionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionSettings")
            .field("servers", &self.shown_servers())
            .field("credentials_file", &self.credentials_file)
            .field("nkey_file", &self.nkey_file)
            .field("tls_cert", &self.tls_cert)
            .field("tls_ca", &self.tls_ca)
            .field("tls_first", &self.tls_first)
            .field("jetstream_domain", &self.jetstream_domain)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Splits a comma-separated list of server URLs; an empty list is the default server.
#[must_use]
pub fn split_servers(list: &str) -> Vec<String> {
    let servers: Vec<String> = list.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect();
    if servers.is_empty() { vec![DEFAULT_SERVER.to_owned()] } else { servers }
}

fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let host = rest.rsplit_once('@').map_or(rest, |(_secret, host)| host);
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_servers_is_split_and_an_empty_one_is_the_default() {
        assert_eq!(split_servers(" nats://a:1, ,b "), ["nats://a:1", "b"]);
        assert_eq!(split_servers(""), [DEFAULT_SERVER]);
    }

    #[test]
    fn no_secret_is_printed() {
        let settings = ConnectionSettings {
            user: Some("tok3n".into()),
            password: Some("s3cret".into()),
            token: Some("t0ken".into()),
            user_jwt: Some("j3wt".into()),
            user_seed: Some("SU123".into()),
            ..ConnectionSettings::to_servers("nats://me:pa55@host:4222,you:w0rd@other")
        };
        let shown = format!("{settings:?} {:?}", settings.password);
        for secret in ["tok3n", "s3cret", "t0ken", "j3wt", "SU123", "pa55", "w0rd", "me@", "you"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
        assert_eq!(settings.shown_servers(), "nats://host:4222, other");
    }
}
