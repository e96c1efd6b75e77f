//! How a client says who it is: credentials, nkeys, JWTs, users, tokens, from files, values and URLs.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use async_nats::{AuthError, ConnectOptions, ServerAddr};
use nkeys::KeyPair;

use crate::connect_error::ConnectError;
use crate::settings::ConnectionSettings;

/// Largest credentials or seed file read, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Options with what the settings, or the servers' URLs, say of that.
pub(crate) fn authenticate(
    options: ConnectOptions,
    settings: &ConnectionSettings,
    servers: &[ServerAddr],
) -> Result<ConnectOptions, ConnectError> {
    if let Some(path) = &settings.credentials_file {
        let text = secret_file("credentials file", path)?;
        return options.credentials(&text).map_err(|source| ConnectError::Settings {
            what: format!("the credentials file {}", path.display()),
            why: format!("holds no user JWT with its seed: {source}"),
            next: "write a new one with `nsc generate creds`",
        });
    }
    if let Some(path) = &settings.nkey_file {
        let text = secret_file("nkey seed file", path)?;
        let seed = text.lines().map(str::trim).find(|line| line.starts_with('S')).unwrap_or_default();
        let what = || format!("the nkey seed file {}", path.display());
        return Ok(options.nkey(checked_seed(seed, what)?.seed().unwrap_or_default()));
    }
    if let (Some(jwt), Some(seed)) = (&settings.user_jwt, &settings.user_seed) {
        let key = Arc::new(checked_seed(seed.expose(), || "the user seed".to_owned())?);
        return Ok(options.jwt(jwt.expose().to_owned(), move |nonce| {
            let key = Arc::clone(&key);
            async move { key.sign(&nonce).map_err(AuthError::new) }
        }));
    }
    Ok(match (&settings.user, &settings.password, &settings.token) {
        (Some(user), Some(password), _) => options.user_and_password(user.clone(), password.expose().to_owned()),
        (_, _, Some(token)) => options.token(token.expose().to_owned()),
        (Some(user), None, None) => options.token(user.clone()),
        (None, _, None) => by_url(options, servers),
    })
}

/// User and password from the first URL that has them (the NATS client reads them and does not send them); a user alone is a token.
fn by_url(options: ConnectOptions, servers: &[ServerAddr]) -> ConnectOptions {
    match servers.iter().find_map(|server| Some((decoded(server.username()?), server.password().map(decoded)))) {
        Some((user, Some(password))) => options.user_and_password(user, password),
        Some((token, None)) => options.token(token),
        None => options,
    }
}

/// A part of a URL with its `%xx` made bytes again.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok())).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn checked_seed(seed: &str, what: impl FnOnce() -> String) -> Result<KeyPair, ConnectError> {
    KeyPair::from_seed(seed).map_err(|source| ConnectError::Settings {
        what: what(),
        why: format!("is no nkey seed: {source}"),
        next: "give a user seed, SU followed by 56 letters and digits",
    })
}

fn secret_file(what: &'static str, path: &Path) -> Result<String, ConnectError> {
    match read_bounded(path, MAX_SECRET_BYTES) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(ConnectError::Settings {
            what: format!("the {what} {}", path.display()),
            why: "is larger than 64 KiB".into(),
            next: "check that it is the right file",
        }),
        Err(source) => Err(ConnectError::Read { what, path: path.to_owned(), source }),
    }
}

/// Reads a small text file; `None` when it is larger than `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> std::io::Result<Option<String>> {
    let mut text = String::new();
    let count = std::fs::File::open(path)?.take(limit.saturating_add(1)).read_to_string(&mut text)?;
    Ok((count as u64 <= limit).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_url_are_decoded() {
        assert_eq!(decoded("p%40ss%2fw%"), "p@ss/w%");
    }
}
