//! Keys of the user: `~/.nex/issuer.nk` signs, `~/.nex/publisher.xk` seals. Plain seeds, generated on first use, readable by the user
//! only.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nex_client::deploy::Keys;
use nkeys::{KeyPair, XKey};

use crate::check;
use crate::env::Env;
use crate::output::Output;

/// File of the key that signs.
const ISSUER: &str = "issuer.nk";

/// Loads keys from the files named, or else from `~/.nex`, where missing ones are generated.
pub(crate) fn load(issuer: Option<&Path>, sender: Option<&Path>, env: &Env, output: &Output) -> anyhow::Result<Keys> {
    Ok(Keys { issuer: self::issuer(issuer, env, output)?, sender: self::sender(sender, env, output)? })
}

/// Loads the key that signs.
pub(crate) fn issuer(named: Option<&Path>, env: &Env, output: &Output) -> anyhow::Result<KeyPair> {
    let key = DefaultKey { file: ISSUER, what: "issuer account key", make: || Ok(KeyPair::new_account().seed()?) };
    let (path, seed) = key.seed(named, env, output)?;
    issuer_of(&path, &seed)
}

/// The key that signs, if there is one already: who only looks needs none.
pub(crate) fn known_issuer(named: Option<&Path>, env: &Env) -> anyhow::Result<Option<KeyPair>> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => match env.nex_home().map(|home| home.join(ISSUER)) {
            Ok(path) if path.exists() => path,
            Ok(_) | Err(_) => return Ok(None),
        },
    };
    issuer_of(&path, &read_seed(&path)?).map(Some)
}

/// The public key that is meant: `me` is the one in `~/.nex`.
pub(crate) fn named_issuer(text: Option<&str>, env: &Env) -> anyhow::Result<Option<String>> {
    match text {
        Some("me") => match known_issuer(None, env)? {
            Some(key) => Ok(Some(key.public_key())),
            None => Err(check::Usage(
                "there is no issuer key of yours yet; next: name a public key, or deploy something, which makes one".into(),
            )
            .into()),
        },
        named => Ok(named.map(str::to_owned)),
    }
}

fn issuer_of(path: &Path, seed: &str) -> anyhow::Result<KeyPair> {
    KeyPair::from_seed(seed)
        .with_context(|| format!("{} holds no nkey seed; next: give a file with one line, S…", path.display()))
}

fn sender(named: Option<&Path>, env: &Env, output: &Output) -> anyhow::Result<XKey> {
    let key = DefaultKey { file: "publisher.xk", what: "publisher xkey", make: || Ok(XKey::new().seed()?) };
    let (path, seed) = key.seed(named, env, output)?;
    XKey::from_seed(&seed)
        .with_context(|| format!("{} holds no curve seed; next: give a file with one line, SX…", path.display()))
}

/// A key in `~/.nex`.
struct DefaultKey<F> {
    file: &'static str,
    what: &'static str,
    make: F,
}

impl<F: Fn() -> anyhow::Result<String>> DefaultKey<F> {
    fn seed(&self, named: Option<&Path>, env: &Env, output: &Output) -> anyhow::Result<(PathBuf, String)> {
        if let Some(path) = named {
            return Ok((path.to_owned(), read_seed(path)?));
        }
        let home = env.nex_home()?;
        let path = home.join(self.file);
        if path.exists() {
            // Where it was made was said then; 0.2.7 says this each time.
            tracing::debug!("Reusing existing {}: {}", self.what, path.display());
            return Ok((path.clone(), read_seed(&path)?));
        }
        let seed = (self.make)()?;
        let wrote = DirBuilder::new().recursive(true).mode(0o700).create(&home).and_then(|()| write_new(&path, &seed));
        wrote.with_context(|| format!("cannot keep the {} in {}; next: check its permissions", self.what, path.display()))?;
        output.note(format_args!("Wrote new {}: {}", self.what, path.display()));
        Ok((path, seed))
    }
}

fn read_seed(path: &Path) -> anyhow::Result<String> {
    let text = check::small_file(path)?;
    let seed = text.lines().map(str::trim).find(|line| line.starts_with('S'));
    Ok(seed.unwrap_or_default().to_owned())
}

/// Never overwrites: without the old key the user could not stop what it started.
fn write_new(path: &Path, seed: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(seed.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn env(home: &Path) -> Env {
        let mut env = Env::default();
        env.directories.home = Some(home.to_owned());
        env
    }

    #[test]
    fn keys_are_generated_once_readable_by_the_user_only_and_reused() {
        let home = tempfile::tempdir().unwrap();
        let output = Output::new(true, true);
        let first = load(None, None, &env(home.path()), &output).unwrap();
        let second = load(None, None, &env(home.path()), &output).unwrap();
        assert_eq!(first.issuer.public_key(), second.issuer.public_key());
        assert_eq!(first.sender.public_key(), second.sender.public_key());
        assert!(first.issuer.public_key().starts_with('A'));
        for name in ["issuer.nk", "publisher.xk"] {
            let path = home.path().join(".nex").join(name);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(!std::fs::read_to_string(&path).unwrap().ends_with('\n'));
        }
    }

    #[test]
    fn a_named_file_must_hold_a_seed() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("x");
        std::fs::write(&file, "nothing").unwrap();
        let output = Output::new(true, true);
        assert!(issuer(Some(&file), &env(home.path()), &output).is_err());
        assert!(issuer(Some(&home.path().join("missing")), &env(home.path()), &output).is_err());
        let key = KeyPair::new_user();
        std::fs::write(&file, format!("{}\n", key.seed().unwrap())).unwrap();
        assert_eq!(issuer(Some(&file), &env(home.path()), &output).unwrap().public_key(), key.public_key());
        assert!(!home.path().join(".nex").exists());
    }
}
