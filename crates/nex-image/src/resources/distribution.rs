//! What distributions package: which package has a piece, and the command that installs it.

use std::path::{Path, PathBuf};

use super::resource::What;

/// A tool that installs packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// Debian, Ubuntu
    Apt,
    /// Fedora, Red Hat
    Dnf,
    /// Alpine
    Apk,
}

impl Manager {
    /// The one this machine has.
    #[must_use]
    pub fn of(path: &[PathBuf]) -> Option<Self> {
        let is_there =
            |name: &str| path.iter().map(PathBuf::as_path).chain([Path::new("/sbin")]).any(|dir| dir.join(name).is_file());
        [(Self::Apt, "apt-get"), (Self::Dnf, "dnf"), (Self::Apk, "apk")]
            .into_iter()
            .find(|(_, name)| is_there(name))
            .map(|found| found.0)
    }

    /// The package that has a piece; `None` for what distributions do not have.
    #[must_use]
    pub fn package(self, what: What) -> Option<&'static str> {
        match (what, self) {
            (What::Qemu, Self::Apt) => Some("qemu-system-x86"),
            (What::Qemu, Self::Dnf) => Some("qemu-system-x86-core"),
            (What::Qemu, Self::Apk) => Some("qemu-system-x86_64"),
            (What::Nft, _) => Some("nftables"),
            (What::Cni(_), Self::Apt | Self::Dnf) => Some("containernetworking-plugins"),
            (What::Cni(_), Self::Apk) => Some("cni-plugins"),
            (What::Firecracker | What::Jailer | What::Kernel | What::RootImage, _) => None,
        }
    }

    /// The command that installs packages, to be run as root: the program, then its arguments.
    #[must_use]
    pub fn command(self, packages: &[&str]) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Apt => &["apt-get", "install", "-y", "--no-install-recommends"],
            Self::Dnf => &["dnf", "install", "-y"],
            Self::Apk => &["apk", "add"],
        };
        words.iter().chain(packages).map(|word| (*word).to_owned()).collect()
    }

    /// The command that looks which packages there are.
    #[must_use]
    pub fn refresh(self) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Apt => &["apt-get", "update"],
            Self::Dnf => &["dnf", "makecache"],
            Self::Apk => &["apk", "update"],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}

/// What to type for a piece on each distribution; empty for what none has.
#[must_use]
pub fn advice(what: What) -> String {
    let line = |manager: Manager| Some(manager.command(&[manager.package(what)?]).join(" "));
    [Manager::Apt, Manager::Dnf, Manager::Apk].into_iter().filter_map(line).collect::<Vec<_>>().join(", or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_distributions_have_is_named_with_its_command() {
        let text = advice(What::Qemu);
        assert!(text.starts_with("apt-get install -y --no-install-recommends qemu-system-x86, or dnf install -y "), "{text}");
        assert!(text.ends_with("apk add qemu-system-x86_64"), "{text}");
        assert_eq!(advice(What::Kernel), "");
    }
}
