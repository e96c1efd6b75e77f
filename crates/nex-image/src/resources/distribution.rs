//! Packages of distributions, and the commands that install them.

use std::path::{Path, PathBuf};

use super::resource::Resource;

/// A package manager.
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
    /// The package manager of this machine.
    #[must_use]
    pub fn of(path: &[PathBuf]) -> Option<Self> {
        let is_there =
            |name: &str| path.iter().map(PathBuf::as_path).chain([Path::new("/sbin")]).any(|dir| dir.join(name).is_file());
        [(Self::Apt, "apt-get"), (Self::Dnf, "dnf"), (Self::Apk, "apk")]
            .into_iter()
            .find(|(_, name)| is_there(name))
            .map(|found| found.0)
    }

    /// The package with a resource; `None` if distributions have none.
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

    /// The command that installs packages, to be run as root: program and arguments.
    #[must_use]
    pub fn command(self, packages: &[&str]) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Apt => &["apt-get", "install", "-y", "--no-install-recommends"],
            Self::Dnf => &["dnf", "install", "-y"],
            Self::Apk => &["apk", "add"],
        };
        words.iter().chain(packages).map(|word| (*word).to_owned()).collect()
    }

    /// The command that updates the package lists.
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

/// The commands that install a resource; empty if no distribution has it.
#[must_use]
pub fn advice(resource: Resource) -> String {
    let line = |manager: PackageManager| Some(manager.command(&[manager.package(resource)?]).join(" "));
    [PackageManager::Apt, PackageManager::Dnf, PackageManager::Apk].into_iter().filter_map(line).collect::<Vec<_>>().join(", or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_names_the_command_of_each_distribution() {
        let text = advice(Resource::Qemu);
        assert!(text.starts_with("apt-get install -y --no-install-recommends qemu-system-x86, or dnf install -y "), "{text}");
        assert!(text.ends_with("apk add qemu-system-x86_64"), "{text}");
        assert_eq!(advice(Resource::Kernel), "");
    }
}
