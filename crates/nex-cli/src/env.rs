//! The environment, read here and nowhere else. Variables that set flags are read by clap.

use std::ffi::OsString;
use std::path::PathBuf;

use nex_bus::context::Directories;

/// Environment of the user.
#[derive(Debug, Clone, Default)]
pub(crate) struct Env {
    /// `$XDG_CONFIG_HOME` or `~/.config`, and `$HOME`.
    pub(crate) directories: Directories,
    /// Directory of nex in `$XDG_DATA_HOME` or `~/.local/share`.
    pub(crate) data: Option<PathBuf>,
    /// Directory of nex in `$XDG_CACHE_HOME` or `~/.cache`.
    pub(crate) cache: Option<PathBuf>,
    /// Files with logins for registries, as docker and podman keep them; the first that has one counts.
    pub(crate) registry_logins: Vec<PathBuf>,
    /// Files with mirrors of registries, as podman and skopeo read them; the first that is there counts.
    pub(crate) registries: Vec<PathBuf>,
    /// The directories of `$PATH`.
    pub(crate) path: Vec<PathBuf>,
    /// Whether `$NO_COLOR` is set.
    pub(crate) no_color: bool,
}

impl Env {
    /// Reads the environment.
    pub(crate) fn read() -> Self {
        Self::from(std::env::var_os)
    }

    fn from(var: impl Fn(&'static str) -> Option<OsString>) -> Self {
        let set = |name| var(name).filter(|value| !value.is_empty());
        let home = set("HOME").map(PathBuf::from);
        let config = set("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let config = config.or_else(|| Some(home.as_ref()?.join(".config"))).unwrap_or_default();
        let data = set("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let data = data.or_else(|| Some(home.as_ref()?.join(".local/share"))).map(|data| data.join("nex"));
        let cache = set("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = cache.or_else(|| Some(home.as_ref()?.join(".cache"))).map(|cache| cache.join("nex"));
        let docker = set("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".docker")));
        let registry_logins = [
            set("REGISTRY_AUTH_FILE").map(PathBuf::from),
            set("XDG_RUNTIME_DIR").map(|runtime| PathBuf::from(runtime).join("containers/auth.json")),
            docker.map(|docker| docker.join("config.json")),
        ];
        let registry_logins = registry_logins.into_iter().flatten().collect();
        let registries = [
            set("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from),
            Some(config.join("containers/registries.conf")),
            Some(PathBuf::from("/etc/containers/registries.conf")),
        ];
        let registries = registries.into_iter().flatten().collect();
        let path = set("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        let directories = Directories { config, home };
        Self { directories, data, cache, registry_logins, registries, path, no_color: set("NO_COLOR").is_some() }
    }

    /// A variable that a file of the user refers to; none if it is not set, or no text.
    #[expect(clippy::unused_self, reason = "the environment is read here and nowhere else")]
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        std::env::var_os(name)?.into_string().ok()
    }

    /// All variables, for a program of the user's that needs to know its user's session.
    #[expect(clippy::unused_self, reason = "the environment is read here and nowhere else")]
    pub(crate) fn inherited(&self) -> impl Iterator<Item = (OsString, OsString)> {
        std::env::vars_os()
    }

    /// `~/.nex`, the directory of keys.
    pub(crate) fn nex_home(&self) -> anyhow::Result<PathBuf> {
        let home = self.directories.home.as_ref();
        home.map(|home| home.join(".nex"))
            .ok_or_else(|| anyhow::anyhow!("there is no home directory to keep keys in; next: set HOME"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_directory_follows_xdg() {
        let plain = Env::from(|name| (name == "HOME").then(|| "/home/me".into()));
        assert_eq!(plain.directories.config, PathBuf::from("/home/me/.config"));
        assert!(!plain.no_color && plain.nex_home().unwrap().ends_with(".nex"));
        let xdg = Env::from(|name| Some(if name == "XDG_CONFIG_HOME" { "/etc/me".into() } else { "/home/me".into() }));
        assert_eq!(xdg.directories.config, PathBuf::from("/etc/me"));
        assert!(xdg.no_color);
        assert!(Env::from(|_| None).nex_home().is_err());
    }
}
