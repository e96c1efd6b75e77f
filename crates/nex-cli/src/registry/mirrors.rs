//! Mirrors of registries, as `registries.conf` of podman and skopeo names them: `[[registry]]` with `prefix`, `location`, `insecure`,
//! `blocked`, and `[[registry.mirror]]` with `location`, `insecure`, `pull-from-mirror`. What else such a file says is not ours.

use std::path::Path;

use anyhow::Context as _;
use nex_image::file::read_bounded;
use nex_image::oci::Reference;
use serde::Deserialize;

use crate::check::Usage;
use crate::env::Env;

/// Largest such file, bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// Docker Hub, as its images are pulled and as such files name it.
const HUB: (&str, &str) = ("registry-1.docker.io", "docker.io");

/// What such files say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Mirrors {
    registry: Vec<Registry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Registry {
    prefix: Option<String>,
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirror: Vec<Mirror>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: PullFromMirror,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFromMirror {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// Where an image can be pulled from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) reference: Reference,
    /// Whether it may be talked to without TLS.
    pub(super) plain_http: bool,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// To be asked first, in this order.
    pub(super) mirrors: Vec<Place>,
    pub(super) origin: Place,
}

impl Mirrors {
    /// Reads the first file that there is, and what is in the directory of the same name with `.d`.
    pub(super) fn read(env: &Env) -> anyhow::Result<Self> {
        let Some(path) = env.registries.iter().find(|path| path.is_file()) else { return Ok(Self::default()) };
        let mut all = Self::read_file(path)?;
        let directory = path.with_file_name("registries.conf.d");
        let mut more: Vec<_> = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        more.sort();
        for path in more.iter().filter(|path| path.extension().is_some_and(|extension| extension == "conf")) {
            // What comes later stands over what came before.
            let mut registries = Self::read_file(path)?.registry;
            registries.append(&mut all.registry);
            all.registry = registries;
        }
        Ok(all)
    }

    fn read_file(path: &Path) -> anyhow::Result<Self> {
        let broken = || format!("cannot use the mirrors of registries in {}; next: correct the file", path.display());
        let text = read_bounded(path, MAX_FILE).map_err(anyhow::Error::from).and_then(|bytes| Ok(String::from_utf8(bytes)?));
        toml::from_str(&text.with_context(broken)?).with_context(broken)
    }

    /// Where an image is to be pulled from.
    pub(super) fn places(&self, reference: &Reference) -> anyhow::Result<Places> {
        let host = if reference.registry == HUB.0 { HUB.1 } else { &reference.registry };
        let name = format!("{host}/{}", reference.repository);
        let fits = |registry: &&Registry| registry.rest_of(&name).is_some();
        // The first of those with the longest prefix.
        let found = self.registry.iter().filter(fits).rev().max_by_key(|registry| registry.prefix().len());
        let as_is = Place { reference: reference.clone(), plain_http: false };
        let Some((registry, rest)) = found.and_then(|registry| Some((registry, registry.rest_of(&name)?))) else {
            return Ok(Places { mirrors: Vec::new(), origin: as_is });
        };
        if registry.blocked {
            let why = format!("{name} is blocked by registries.conf; next: use another registry, or change the file");
            return Err(Usage(why).into());
        }
        let at = |location: &str, plain_http| {
            let text = format!("{}{rest}:{}", location.trim_end_matches('/'), reference.tag);
            let no_registry = || format!("the location '{location}' in registries.conf names no registry");
            let parsed = text.parse::<Reference>().with_context(no_registry)?;
            // A word alone would be taken for a part of a name on Docker Hub.
            let host = location.split('/').next().unwrap_or_default();
            anyhow::ensure!(host == "localhost" || host.contains(['.', ':']), no_registry());
            anyhow::Ok(Place { reference: Reference { digest: reference.digest.clone(), ..parsed }, plain_http })
        };
        let is_for_this = |mirror: &&Mirror| match mirror.pull_from_mirror {
            PullFromMirror::All => true,
            PullFromMirror::DigestOnly => reference.digest.is_some(),
            PullFromMirror::TagOnly => reference.digest.is_none(),
        };
        let mirrors = registry.mirror.iter().filter(is_for_this).map(|mirror| at(&mirror.location, mirror.insecure));
        let origin = match &registry.location {
            Some(location) if !location.is_empty() => at(location, registry.insecure)?,
            _ => Place { plain_http: registry.insecure, ..as_is },
        };
        Ok(Places { mirrors: mirrors.collect::<anyhow::Result<_>>()?, origin })
    }
}

impl Registry {
    fn prefix(&self) -> &str {
        let given = self.prefix.as_deref().filter(|prefix| !prefix.is_empty());
        given.or(self.location.as_deref()).unwrap_or_default()
    }

    /// What follows the prefix in a name that begins with it; after `*.example.com`, the path.
    fn rest_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let prefix = self.prefix();
        if let Some(domain) = prefix.strip_prefix('*') {
            let (host, _) = name.split_once('/')?;
            return (domain.len() > 1 && host.ends_with(domain)).then(|| name.get(host.len()..))?;
        }
        let rest = name.strip_prefix(prefix).filter(|_| !prefix.is_empty())?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str, name: &str) -> Result<Vec<String>, String> {
        let mirrors: Mirrors = toml::from_str(text).map_err(|error| error.to_string())?;
        let places = mirrors.places(&name.parse().unwrap()).map_err(|error| format!("{error:#}"))?;
        let shown = |place: &Place| format!("{}{}", if place.plain_http { "http " } else { "" }, place.reference);
        Ok(places.mirrors.iter().chain([&places.origin]).map(shown).collect())
    }

    #[test]
    fn mirrors_come_before_the_registry_and_keep_the_name() {
        let text = r#"
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.lan:5000/hub"
            insecure = true
            [[registry.mirror]]
            location = "second.lan"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "docker.io/library"
            location = "base.lan/library"
        "#;
        let hub = "registry-1.docker.io/me/shop:v1";
        assert_eq!(places(text, "me/shop:v1").unwrap(), ["http mirror.lan:5000/hub/me/shop:v1", hub]);
        assert_eq!(places(text, "alpine").unwrap(), ["base.lan/library/alpine:latest"]);
        assert_eq!(places(text, "ghcr.io/me/shop:v1").unwrap(), ["ghcr.io/me/shop:v1"]);
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = places(text, &format!("me/shop@{digest}")).unwrap();
        assert_eq!(pinned[1], format!("second.lan/me/shop@{digest}"));
        assert_eq!(pinned.len(), 3);
    }

    #[test]
    fn prefixes_end_where_names_do_and_a_registry_can_be_blocked() {
        let text = r#"
            [[registry]]
            prefix = "ghcr.io/me"
            blocked = true
            [[registry]]
            prefix = "*.corp.example"
            location = "proxy.example"
        "#;
        assert!(places(text, "ghcr.io/me/shop").unwrap_err().contains("is blocked by registries.conf"));
        assert_eq!(places(text, "ghcr.io/meow/shop").unwrap(), ["ghcr.io/meow/shop:latest"]);
        assert_eq!(places(text, "a.corp.example/x:v1").unwrap(), ["proxy.example/x:v1"]);
        assert_eq!(places(text, "corp.example/x:v1").unwrap(), ["corp.example/x:v1"]);
        for odd in ["../evil", "mirror", "mirror/hub", "https://mirror.lan", ""] {
            let text = format!("[[registry]]\nlocation = 'ghcr.io'\n[[registry.mirror]]\nlocation = '{odd}'");
            assert!(places(&text, "ghcr.io/a").unwrap_err().contains("names no registry"), "{odd}");
        }
        assert!(places("[[registry]]\nmirror = 3", "a").is_err());
        assert_eq!(places("[registries.search]\nregistries = ['docker.io']", "a.io/b").unwrap(), ["a.io/b:latest"]);
    }
}
