//! Connection settings from a context of the NATS CLI: `<config>/nats/context/<name>.json`, the selected one named in
//! `<config>/nats/context.txt`. Where `<config>` is, the caller knows; no environment is read here.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::settings::{ConnectionSettings, Secret, split_servers};

/// Largest context file read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Where the user's configuration lies.
#[derive(Debug, Clone, Default)]
pub struct Directories {
    /// `$XDG_CONFIG_HOME`, or `~/.config`.
    pub config: PathBuf,
    /// The home directory, for `~` in paths.
    pub home: Option<PathBuf>,
}

impl Directories {
    fn contexts(&self) -> PathBuf {
        self.config.join("nats").join("context")
    }

    /// Puts the home directory in place of a leading `~`.
    #[must_use]
    pub fn expand(&self, path: &str) -> PathBuf {
        match (&self.home, path.strip_prefix("~/"), path) {
            (Some(home), Some(rest), _) => home.join(rest),
            (Some(home), None, "~") => home.clone(),
            _ => PathBuf::from(path),
        }
    }
}

/// A context could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// There is no context of this name.
    #[error("unknown context provided: '{name}' is not in {directory}{known}; next: {}", unknown_hint(directory))]
    Unknown {
        /// The name.
        name: String,
        /// Where it was looked for.
        directory: PathBuf,
        /// `, which has a, b`, or nothing.
        known: String,
    },
    /// No context is named and none is selected.
    #[error("no NATS context is selected; next: select one with `nats context select`, or name one")]
    NoneSelected,
    /// The name could leave the directory of contexts.
    #[error("'{0}' is no context name; next: give letters, digits, '-', '_' and '.', or a path that contains '/'")]
    Name(String),
    /// The file could not be read.
    #[error("cannot read the NATS context {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than a context is.
    #[error("the NATS context {0} is larger than 64 KiB; next: check that it is a context file")]
    TooLarge(PathBuf),
    /// The file is not a context.
    #[error("{path} is not a NATS context; next: rewrite it with `nats context edit`")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The context asks for what this client does not do.
    #[error("the NATS context {path} uses '{field}', which nex does not support; next: use creds, nkey, user or token there")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The member of the file.
        field: &'static str,
    },
}

fn unknown_hint(directory: &Path) -> &'static str {
    if directory.starts_with("/root") {
        "with sudo, contexts are looked for under root's home: use `sudo --preserve-env=XDG_CONFIG_HOME` or the file's full path"
    } else {
        "list contexts with `nats context ls`, or give the file's path"
    }
}

/// A context file as the NATS CLI writes it; other members mean nothing to us.
#[derive(Deserialize)]
#[serde(default)]
struct ContextFile {
    url: String,
    token: String,
    user: String,
    password: String,
    creds: String,
    nkey: String,
    cert: String,
    key: String,
    ca: String,
    nsc: String,
    socks_proxy: String,
    jetstream_domain: String,
    inbox_prefix: String,
    user_jwt: String,
    user_seed: String,
    tls_first: bool,
}

impl Default for ContextFile {
    fn default() -> Self {
        let empty = String::new;
        Self {
            url: empty(),
            token: empty(),
            user: empty(),
            password: empty(),
            creds: empty(),
            nkey: empty(),
            cert: empty(),
            key: empty(),
            ca: empty(),
            nsc: empty(),
            socks_proxy: empty(),
            jetstream_domain: empty(),
            inbox_prefix: empty(),
            user_jwt: empty(),
            user_seed: empty(),
            tls_first: false,
        }
    }
}

/// Loads a context by its name, or by the path of its file if that contains a `/`.
///
/// # Errors
/// [`ContextError`]
pub fn load(name_or_path: &str, directories: &Directories) -> Result<ConnectionSettings, ContextError> {
    if name_or_path.contains('/') {
        return read(&directories.expand(name_or_path), directories);
    }
    let legal = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name_or_path.is_empty() || name_or_path.starts_with('.') || !name_or_path.chars().all(legal) {
        return Err(ContextError::Name(name_or_path.chars().take(80).collect()));
    }
    let directory = directories.contexts();
    let path = directory.join(format!("{name_or_path}.json"));
    if !path.is_file() {
        return Err(ContextError::Unknown { name: name_or_path.to_owned(), known: known(&directory), directory });
    }
    read(&path, directories)
}

/// Name of the context the user selected with `nats context select`, if there is one.
///
/// # Errors
/// [`ContextError::Read`] and [`ContextError::TooLarge`]
pub fn selected(directories: &Directories) -> Result<Option<String>, ContextError> {
    let path = directories.config.join("nats").join("context.txt");
    if !path.is_file() {
        return Ok(None);
    }
    let text = bounded(&path)?;
    let name = text.trim();
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

/// Loads the context the user selected with `nats context select`.
///
/// # Errors
/// [`ContextError::NoneSelected`] and what [`load`] says.
pub fn load_selected(directories: &Directories) -> Result<ConnectionSettings, ContextError> {
    load(&selected(directories)?.ok_or(ContextError::NoneSelected)?, directories)
}

fn known(directory: &Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .take(20)
        .collect();
    names.sort();
    if names.is_empty() { String::new() } else { format!(", which has {}", names.join(", ")) }
}

fn read(path: &Path, directories: &Directories) -> Result<ConnectionSettings, ContextError> {
    parse(&bounded(path)?, path, directories)
}

/// Reads the text of a context; `path` is for the error only.
///
/// # Errors
/// [`ContextError::Malformed`], or [`ContextError::Unsupported`] for what no connection of ours can do.
pub fn parse(text: &str, path: &Path, directories: &Directories) -> Result<ConnectionSettings, ContextError> {
    let file: ContextFile =
        serde_json::from_str(text).map_err(|source| ContextError::Malformed { path: path.to_owned(), source })?;
    for (value, field) in [(&file.nsc, "nsc"), (&file.socks_proxy, "socks_proxy")] {
        if !value.is_empty() {
            return Err(ContextError::Unsupported { path: path.to_owned(), field });
        }
    }
    let text = |value: String| (!value.is_empty()).then_some(value);
    let secret = |value: String| (!value.is_empty()).then(|| Secret::from(value));
    let file_at = |value: String| (!value.is_empty()).then(|| directories.expand(&value));
    Ok(ConnectionSettings {
        servers: split_servers(&file.url),
        user: text(file.user),
        password: secret(file.password),
        token: secret(file.token),
        credentials_file: file_at(file.creds),
        nkey_file: file_at(file.nkey),
        user_jwt: secret(file.user_jwt),
        user_seed: secret(file.user_seed),
        tls_cert: file_at(file.cert),
        tls_key: file_at(file.key),
        tls_ca: file_at(file.ca),
        tls_first: file.tls_first,
        server_certificate: None,
        jetstream_domain: text(file.jetstream_domain),
        name: None,
        inbox_prefix: text(file.inbox_prefix),
    })
}

fn bounded(path: &Path) -> Result<String, ContextError> {
    match crate::authenticate::read_bounded(path, MAX_BYTES) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(ContextError::TooLarge(path.to_owned())),
        Err(source) => Err(ContextError::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories() -> (tempfile::TempDir, Directories) {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories { config: root.path().join("config"), home: Some(root.path().join("home")) };
        std::fs::create_dir_all(directories.contexts()).unwrap();
        (root, directories)
    }

    #[test]
    fn a_context_of_the_nats_cli_is_read_whole() {
        let (root, directories) = directories();
        let text = r#"{"description":"x","url":"nats://a:1,nats://b:2","token":"","user":"u","password":"p","creds":"~/me.creds",
            "nkey":"","cert":"/c","key":"/k","ca":"/ca","nsc":"","jetstream_domain":"hub","jetstream_api_prefix":"",
            "jetstream_event_prefix":"","inbox_prefix":"_ME","user_jwt":"","user_seed":"","color_scheme":"","tls_first":true}"#;
        std::fs::write(directories.contexts().join("work.json"), text).unwrap();
        let settings = load("work", &directories).unwrap();
        assert_eq!(settings.servers, ["nats://a:1", "nats://b:2"]);
        assert_eq!(settings.credentials_file, Some(root.path().join("home/me.creds")));
        assert_eq!((settings.user.as_deref(), settings.password.as_ref().map(Secret::expose)), (Some("u"), Some("p")));
        assert_eq!((settings.jetstream_domain.as_deref(), settings.inbox_prefix.as_deref()), (Some("hub"), Some("_ME")));
        assert!(settings.tls_first && settings.token.is_none());
        let by_path = load(directories.contexts().join("work.json").to_str().unwrap(), &directories).unwrap();
        assert_eq!(by_path, settings);
        assert!(matches!(load_selected(&directories), Err(ContextError::NoneSelected)));
        std::fs::write(directories.config.join("nats/context.txt"), "work\n").unwrap();
        assert_eq!(load_selected(&directories).unwrap(), settings);
    }

    #[test]
    fn an_unknown_context_is_answered_with_those_there_are() {
        let (_root, directories) = directories();
        std::fs::write(directories.contexts().join("work.json"), "{}").unwrap();
        let text = load("wrok", &directories).unwrap_err().to_string();
        assert!(text.starts_with("unknown context provided: 'wrok'") && text.contains("which has work"), "{text}");
        assert!(load("work", &directories).is_ok());
    }

    #[test]
    fn sudo_is_hinted_at_where_root_has_no_such_context() {
        let directories = Directories { config: PathBuf::from("/root").join(".nex-test-without-contexts"), home: None };
        assert!(load("x", &directories).unwrap_err().to_string().contains("with sudo"));
    }

    #[test]
    fn bad_names_and_bad_files_are_refused() {
        let (_root, directories) = directories();
        for name in ["", "..", "a b", "a\0b"] {
            assert!(matches!(load(name, &directories), Err(ContextError::Name(_))), "{name:?}");
        }
        std::fs::write(directories.contexts().join("bad.json"), "[").unwrap();
        assert!(matches!(load("bad", &directories), Err(ContextError::Malformed { .. })));
        std::fs::write(directories.contexts().join("nsc.json"), r#"{"nsc":"nsc://o/a/u"}"#).unwrap();
        assert!(matches!(load("nsc", &directories), Err(ContextError::Unsupported { field: "nsc", .. })));
        std::fs::write(directories.contexts().join("big.json"), vec![b' '; 70_000]).unwrap();
        assert!(matches!(load("big", &directories), Err(ContextError::TooLarge(_))));
    }
}
