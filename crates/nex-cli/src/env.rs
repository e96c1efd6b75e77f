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
        let path = set("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        Self { directories: Directories { config, home }, data, path, no_color: set("NO_COLOR").is_some() }
    }

    /// A variable that a file of the user refers to; none if it is not set, or no text.
    #[expect(clippy::unused_self, reason = "the environment is read here and nowhere else")]
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        std::env::var_os(name)?.into_string().ok()
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
