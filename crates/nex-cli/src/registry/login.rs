//! Logins that `docker login` and `podman login` have kept: in a file, or with a credential helper that the file names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use data_encoding::BASE64;
use nex_image::file::read_bounded;
use nex_image::oci::Credentials;
use nex_process::{ChildSpec, Deadline, Output as ChildOutput, Stdin};
use serde::Deserialize;

use crate::env::Env;

/// Largest file of logins, and most that a helper says, bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// Time for a helper, which may ask its user to unlock a key ring.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// Docker Hub, as images name it and as its logins do.
const HUB: (&str, &str) = ("registry-1.docker.io", "https://index.docker.io/v1/");
/// A name that says that the secret is a token for another protocol.
const IDENTITY_TOKEN: &str = "<token>";

/// What such a file says; the rest is not ours.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LoginFile {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// The login for a registry, if there is one.
pub(super) async fn find(registry: &str, env: &Env) -> anyhow::Result<Option<Credentials>> {
    for path in &env.registry_logins {
        if !path.is_file() {
            continue;
        }
        let of_file = find_in(path, registry, env).await;
        let found = of_file.with_context(|| format!("cannot use the registry logins in {}", path.display()))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

async fn find_in(path: &Path, registry: &str, env: &Env) -> anyhow::Result<Option<Credentials>> {
    let file: LoginFile = serde_json::from_slice(&read_bounded(path, MAX_FILE)?)?;
    let names = names(registry);
    if let Some(helper) = names.iter().find_map(|name| file.cred_helpers.get(name)).or(file.creds_store.as_ref()) {
        for name in &names {
            if let Some(found) = ask(helper, name, env).await? {
                return Ok(Some(found));
            }
        }
    }
    names.iter().find_map(|name| file.auths.get(name)?.auth.as_deref().filter(|auth| !auth.is_empty())).map(decode).transpose()
}

/// What a registry may be called in such files.
fn names(registry: &str) -> Vec<String> {
    if registry == HUB.0 {
        return vec![HUB.1.to_owned(), "docker.io".to_owned(), "index.docker.io".to_owned()];
    }
    vec![registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v1/"), format!("https://{registry}/v2/")]
}

fn decode(auth: &str) -> anyhow::Result<Credentials> {
    let bytes = BASE64.decode(auth.as_bytes()).context("a login in it is no base64")?;
    let text = String::from_utf8(bytes).context("a login in it is no text")?;
    let (name, password) = text.split_once(':').context("a login in it has no password")?;
    Ok(Credentials { name: name.to_owned(), password: password.to_owned() })
}

/// Asks a credential helper; nothing if it knows no login.
async fn ask(helper: &str, registry: &str, env: &Env) -> anyhow::Result<Option<Credentials>> {
    let is_name = helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    anyhow::ensure!(is_name && !helper.is_empty(), "'{}' is no credential helper", helper.chars().take(80).collect::<String>());
    let name = format!("docker-credential-{helper}");
    let program: Option<PathBuf> = env.path.iter().map(|dir| dir.join(&name)).find(|path| path.is_file());
    let program = program.with_context(|| format!("the credential helper {name} is not in PATH"))?;
    let said = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&said);
    let listen = ChildOutput::Lines(Arc::new(move |line: &str| {
        let mut said = sink.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() + line.len() < usize::try_from(MAX_FILE).unwrap_or(usize::MAX) {
            said.push_str(line);
        }
    }));
    let mut child = ChildSpec::new(program).args(["get"]).stdin(Stdin::Bytes(registry.as_bytes().to_vec())).stdout(listen);
    for (variable, value) in env.inherited() {
        child = child.env(variable, value);
    }
    let child = child.spawn()?;
    let exit = Deadline::after(HELPER_TIMEOUT).bound(child.exited()).await;
    let exit = exit.with_context(|| format!("the credential helper {name} does not answer"))?;
    if !exit.is_success() {
        // Helpers fail where they know no login, each in its own words.
        tracing::debug!(helper, registry, %exit, "no login");
        return Ok(None);
    }
    let text = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let answer: Answer = serde_json::from_str(&text).with_context(|| format!("what {name} answers is no login"))?;
    anyhow::ensure!(
        answer.username != IDENTITY_TOKEN,
        "{name} has a token that registries do not take by themselves; next: log in with a name and an access token"
    );
    Ok(Some(Credentials { name: answer.username, password: answer.secret }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn world() -> (tempfile::TempDir, Env) {
        let home = tempfile::tempdir().unwrap();
        let logins = vec![home.path().join("none.json"), home.path().join("config.json")];
        let env = Env { registry_logins: logins, path: vec![home.path().to_owned(), "/bin".into()], ..Env::default() };
        (home, env)
    }

    async fn with(text: &str, registry: &str) -> Result<Option<String>, String> {
        let (home, env) = world();
        std::fs::write(home.path().join("config.json"), text).unwrap();
        let helper = home.path().join("docker-credential-mine");
        let script = "#!/bin/sh\nread -r registry\ncase $registry in ghcr.io) echo '{\"Username\":\"me\",\"Secret\":\"s:x\"}';; \
                      odd.io) echo nonsense;; token.io) echo '{\"Username\":\"<token>\",\"Secret\":\"s\"}';; *) exit 1;; esac\n";
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = find(registry, &env).await.map_err(|error| format!("{error:#}"))?;
        Ok(found.map(|found| format!("{} {}", found.name, found.password)))
    }

    #[tokio::test]
    async fn a_login_is_found_in_a_file_and_by_a_helper() {
        let auths =
            r#"{"auths":{"r.io:5000":{"auth":"bWU6YTpi"},"https://index.docker.io/v1/":{"auth":"aHViOnB3"},"e.io":{}},"x":1}"#;
        assert_eq!(with(auths, "r.io:5000").await, Ok(Some("me a:b".into())));
        assert_eq!(with(auths, "registry-1.docker.io").await, Ok(Some("hub pw".into())));
        assert_eq!(with(auths, "e.io").await, Ok(None));
        assert_eq!(with(auths, "other.io").await, Ok(None));
        assert_eq!(with(r#"{"credsStore":"mine"}"#, "ghcr.io").await, Ok(Some("me s:x".into())));
        assert_eq!(with(r#"{"credHelpers":{"ghcr.io":"mine"}}"#, "ghcr.io").await, Ok(Some("me s:x".into())));
        let both = r#"{"credsStore":"mine","auths":{"r.io":{"auth":"bWU6YQ=="}}}"#;
        assert_eq!(with(both, "r.io").await, Ok(Some("me a".into())));
    }

    #[tokio::test]
    async fn nonsense_is_told_with_its_file() {
        for (text, registry, why) in [
            ("{", "r.io", "config.json"),
            (r#"{"auths":{"r.io":{"auth":"%"}}}"#, "r.io", "no base64"),
            (r#"{"auths":{"r.io":{"auth":"bWU="}}}"#, "r.io", "no password"),
            (r#"{"credsStore":"../evil"}"#, "r.io", "no credential helper"),
            (r#"{"credsStore":"absent"}"#, "r.io", "docker-credential-absent is not in PATH"),
            (r#"{"credsStore":"mine"}"#, "odd.io", "is no login"),
            (r#"{"credsStore":"mine"}"#, "token.io", "access token"),
        ] {
            let said = with(text, registry).await.unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
