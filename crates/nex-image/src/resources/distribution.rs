//! What distributions package: which package has a piece, and the command that installs it.

use std::path::{Path, PathBuf};

use super::resource::Resource;

/// A tool that installs packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageManager {
    /// Debian, Ubuntu
    Apt,
    /// Fedora, Red Hat
    Dnf,
    /// Alpine
    Apk,
}

impl PackageManager {
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
    pub fn package(self, resource: Resource) -> Option<&'static str> {
        match (resource, self) {
            (Resource::Qemu, Self::Apt) => Some("qemu-system-x86"),
            (Resource::Qemu, Self::Dnf) => Some("qemu-system-x86-core"),
            (Resource::Qemu, Self::Apk) => Some("qemu-system-x86_64"),
            (Resource::Nft, _) => Some("nftables"),
            (Resource::Cni(_), Self::Apt | Self::Dnf) => Some("containernetworking-plugins"),
            (Resource::Cni(_), Self::Apk) => Some("cni-plugins"),
            (Resource::Firecracker | Resource::Jailer | Resource::Kernel | Resource::RootImage, _) => None,
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
pub fn advice(resource: Resource) -> String {
    let line = |manager: PackageManager| Some(manager.command(&[manager.package(resource)?]).join(" "));
    [PackageManager::Apt, PackageManager::Dnf, PackageManager::Apk].into_iter().filter_map(line).collect::<Vec<_>>().join(", or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_distributions_have_is_named_with_its_command() {
        let text = advice(Resource::Qemu);
        assert!(text.starts_with("apt-get install -y --no-install-recommends qemu-system-x86, or dnf install -y "), "{text}");
        assert!(text.ends_with("apk add qemu-system-x86_64"), "{text}");
        assert_eq!(advice(Resource::Kernel), "");
    }
}
