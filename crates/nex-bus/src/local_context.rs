//! The context of `nex up`'s NATS server: written by `nex up`, found by `nex` whenever that server is meant, selected for the NATS CLI
//! if nothing else is.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::context::{self, Directories};
use crate::settings::ConnectionSettings;

/// What the context's description says: by it we know our own.
const DESCRIPTION: &str = "the NATS server of nex up";
/// Prefix of its users' reply subjects, which nobody without credentials may hear.
pub const INBOX_PREFIX: &str = "_INBOX_NEX";
const DEFAULT_PORT: u16 = 4222;

/// A context that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its name.
    pub name: String,
    /// Whether the NATS CLI takes it by itself.
    pub is_selected: bool,
}

/// The port of the one server meant, if that is on this machine.
#[must_use]
pub fn local_port(servers: &[String]) -> Option<u16> {
    let [server] = servers else { return None };
    let address = server.strip_prefix("nats://").unwrap_or(server);
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (address, DEFAULT_PORT),
    };
    matches!(host, "127.0.0.1" | "localhost" | "[::1]" | "0.0.0.0").then_some(port)
}

/// Writes the context of a server on a port of this machine, and selects it if none is, or one of ours whose server does not run.
///
/// # Errors
/// Those of the file system; [`io::ErrorKind::AlreadyExists`] when the user has a context of that name that is not ours.
pub fn write(port: u16, nkey: &Path, directories: &Directories) -> io::Result<Written> {
    let (name, path) = named(port, directories);
    if path.is_file() && ours(&path, directories).is_none() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is not of nex", path.display())));
    }
    let url = format!("nats://127.0.0.1:{port}");
    let text = json!({"description": DESCRIPTION, "url": url, "nkey": nkey, "inbox_prefix": INBOX_PREFIX});
    write_private(&path, &text.to_string())?;
    let selection = directories.config.join("nats").join("context.txt");
    let selected = std::fs::read_to_string(&selection).unwrap_or_default();
    let is_free = selected.trim().is_empty() || is_over(selected.trim(), directories);
    if is_free {
        write_private(&selection, &name)?;
    }
    Ok(Written { is_selected: is_free || selected.trim() == name, name })
}

/// Whether a context is of a `nex up` whose server does not run any more.
fn is_over(name: &str, directories: &Directories) -> bool {
    let path = directories.config.join("nats").join("context").join(format!("{name}.json"));
    let port = ours(&path, directories).and_then(|found| local_port(&found.servers));
    port.is_some_and(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err())
}

/// The settings for a server of this machine that `nex up` has started, with credentials.
#[must_use]
pub fn find(servers: &[String], directories: &Directories) -> Option<ConnectionSettings> {
    let port = local_port(servers)?;
    let found = ours(&named(port, directories).1, directories)?;
    // What is left of a state directory that is gone helps nobody.
    found.nkey_file.as_ref().is_some_and(|file| file.is_file()).then_some(found)
}

fn named(port: u16, directories: &Directories) -> (String, PathBuf) {
    let name = if port == DEFAULT_PORT { "nex".to_owned() } else { format!("nex-{port}") };
    let path = directories.config.join("nats").join("context").join(format!("{name}.json"));
    (name, path)
}

fn ours(path: &Path, directories: &Directories) -> Option<ConnectionSettings> {
    let text = std::fs::read_to_string(path).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    let is_ours = value.get("description").and_then(serde_json::Value::as_str) == Some(DESCRIPTION);
    is_ours.then(|| context::parse(&text, path, directories).ok()).flatten()
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let draft = path.with_extension("nex-new");
    let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories() -> (tempfile::TempDir, Directories) {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories { config: root.path().join("config"), home: None };
        (root, directories)
    }

    fn servers(url: &str) -> Vec<String> {
        vec![url.to_owned()]
    }

    #[test]
    fn only_one_server_on_this_machine_is_local() {
        let port = |url: &str| local_port(&ConnectionSettings::to_servers(url).servers);
        assert_eq!(port("nats://127.0.0.1:4333"), Some(4333));
        assert_eq!(port("localhost"), Some(4222));
        assert_eq!(port("nats://example.com:4222"), None);
        assert_eq!(port("tls://127.0.0.1:4222"), None);
        assert_eq!(port("nats://127.0.0.1:1,nats://127.0.0.1:2"), None);
    }

    #[test]
    fn what_is_written_is_found_by_its_server_and_selected_unless_another_is() {
        let (root, directories) = directories();
        let key = root.path().join("user.nk");
        std::fs::write(&key, "SU").unwrap();
        assert_eq!(find(&servers("nats://127.0.0.1:4222"), &directories), None);
        assert_eq!(write(4222, &key, &directories).unwrap(), Written { name: "nex".into(), is_selected: true });
        assert_eq!(context::selected(&directories).unwrap().as_deref(), Some("nex"));
        for url in ["nats://127.0.0.1:4222", "localhost:4222", "localhost"] {
            let found = find(&servers(url), &directories).unwrap();
            assert_eq!((found.nkey_file.as_ref(), found.inbox_prefix.as_deref()), (Some(&key), Some(INBOX_PREFIX)));
        }
        assert_eq!(find(&servers("nats://127.0.0.1:4444"), &directories), None);
        assert_eq!(find(&servers("nats://example.com:4222"), &directories), None);
        std::fs::remove_file(&key).unwrap();
        assert_eq!(find(&servers("localhost"), &directories), None, "its key is gone");
    }

    #[test]
    fn one_of_ours_stays_selected_while_its_server_runs() {
        let (root, directories) = directories();
        let (key, server) = (root.path().join("user.nk"), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let port = server.local_addr().unwrap().port();
        assert!(write(port, &key, &directories).unwrap().is_selected);
        // Nobody listens on it, but nobody is asked either: it is not the selected one.
        assert_eq!(write(1, &key, &directories).unwrap(), Written { name: "nex-1".into(), is_selected: false });
        drop(server);
        assert!(write(1, &key, &directories).unwrap().is_selected);
        assert_eq!(context::selected(&directories).unwrap().as_deref(), Some("nex-1"));
    }

    #[test]
    fn a_context_of_the_users_own_is_left_alone() {
        let (root, directories) = directories();
        let own = directories.config.join("nats/context/nex.json");
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::fs::write(&own, r#"{"url":"nats://127.0.0.1:4222","user":"me"}"#).unwrap();
        assert_eq!(write(4222, &root.path().join("user.nk"), &directories).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(find(&servers("localhost"), &directories), None);
        assert!(std::fs::read_to_string(&own).unwrap().contains("me"));
        // The user's own stays selected, whether its server runs or not.
        std::fs::write(directories.config.join("nats/context.txt"), "nex").unwrap();
        assert!(!write(1, &root.path().join("user.nk"), &directories).unwrap().is_selected);
    }
}
