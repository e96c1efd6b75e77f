//! `cargo xtask package`: a Debian package and a plain archive, in `target/package`. Nothing is started by installing one: a node is its
//! operator's to configure first.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::skip::skip;
use crate::{dist, machines, shell};

const SERVICE: &str = include_str!("../package/nex.service");
/// A node's configuration to begin with: the NATS server of this host, every type of workload that the host has sandboxes for.
const CONFIGURATION: &str = "{}\n";
const DESCRIPTION: &str = "turns a NATS system into a place where code runs
 Nodes join a NATS system; services (programs, scripts, OCI images) and functions
 (WebAssembly, JavaScript) are deployed to them, each in a sandbox of its own.";
/// What a node uses where it is there.
const RECOMMENDS: &str = "nats-server (>= 2.12), nftables, qemu-system-x86, erofs-utils";
/// Shells, and where each looks for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/nex"),
    ("zsh", "usr/share/zsh/vendor-completions/_nex"),
    ("fish", "usr/share/fish/vendor_completions.d/nex.fish"),
];

/// Builds the programs of a release and packs them.
pub(crate) fn run(is_dev: bool) -> Result<()> {
    let programs = if is_dev { dist::dev()? } else { dist::release()? };
    let out = shell::target_dir()?.join("package");
    let effort = if is_dev { Effort::Quick } else { Effort::Small };
    for file in pack(&programs, &out, effort)? {
        println!("{} {} KiB", file.display(), file.metadata()?.len() / 1024);
    }
    Ok(())
}

/// How hard the files are compressed.
#[derive(Debug, Clone, Copy)]
enum Effort {
    Small,
    /// Programs of the development profile are large, and nobody keeps them.
    Quick,
}

/// Packs `nex` and `nex-agent`; gives the files.
fn pack(programs: &Path, out: &Path, effort: Effort) -> Result<Vec<PathBuf>> {
    let (gzip, deb) = match effort {
        Effort::Small => ("gzip -9", "-Zxz"),
        Effort::Quick => ("gzip -1", "-Znone"),
    };
    let root = out.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    lay_out(programs, &root)?;
    let (version, machine) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let archive = out.join(format!("nex-{version}-{machine}-linux.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "-I", gzip, "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(root.join("usr/bin"))
        .args(["nex", "nex-agent"]);
    shell::run(&mut tar)?;
    let mut made = vec![archive];
    if machines::find("dpkg-deb").is_none() {
        skip("the Debian package", "there is no dpkg-deb")?;
    } else {
        let architecture = architecture(machine)?;
        let package = out.join(format!("nex_{version}_{architecture}.deb"));
        write(&root.join("DEBIAN/control"), &control(version, architecture), 0o644)?;
        write(&root.join("DEBIAN/conffiles"), "/etc/nex/node.json\n", 0o644)?;
        shell::run(Command::new("dpkg-deb").args(["--root-owner-group", deb, "--build"]).arg(&root).arg(&package))?;
        made.push(package);
    }
    fs::remove_dir_all(&root)?;
    Ok(made)
}

/// The files as they are installed.
fn lay_out(programs: &Path, root: &Path) -> Result<()> {
    for name in dist::SHIPPED {
        let (from, to) = (programs.join(name), root.join("usr/bin").join(name));
        fs::create_dir_all(root.join("usr/bin"))?;
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    for (shell, path) in COMPLETIONS {
        let text = shell::output(Command::new(root.join("usr/bin/nex")).args(["completion", shell]))?;
        write(&root.join(path), &text, 0o644)?;
    }
    write(&root.join("usr/lib/systemd/system/nex.service"), SERVICE, 0o644)?;
    write(&root.join("etc/nex/node.json"), CONFIGURATION, 0o644)?;
    let read = |name: &str| fs::read_to_string(shell::root().join(name)).with_context(|| format!("cannot read {name}"));
    write(&root.join("usr/share/doc/nex/copyright"), &read("LICENSE")?, 0o644)?;
    write(&root.join("usr/share/doc/nex/changelog.md"), &read("CHANGELOG.md")?, 0o644)?;
    write(&root.join("usr/share/doc/nex/node.md"), &read("docs/node.md")?, 0o644)
}

fn control(version: &str, architecture: &str) -> String {
    format!(
        "Package: nex\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: the nex authors <nex@localhost>\nSection: net\n\
         Priority: optional\nRecommends: {RECOMMENDS}\nDescription: {DESCRIPTION}\n"
    )
}

/// What Debian calls a processor.
fn architecture(machine: &str) -> Result<&'static str> {
    match machine {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("nex is not packed for {other}"),
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let directory = path.parent().context("a file has a directory")?;
    fs::create_dir_all(directory)?;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_what_is_installed() {
        const TEST: &str = "what_is_packed_is_what_is_installed";
        let Some(programs) = std::env::var_os("NEX_DIST") else { return skip(TEST, "NEX_DIST names no programs").unwrap() };
        if machines::find("dpkg-deb").is_none() {
            return skip(TEST, "there is no dpkg-deb").unwrap();
        }
        let out = tempfile::tempdir().unwrap();
        let made = pack(programs.as_ref(), out.path(), Effort::Quick).unwrap();
        let [archive, package] = made.as_slice() else { panic!("{made:?}") };
        let (from_archive, installed) = (out.path().join("archive"), out.path().join("installed"));
        fs::create_dir(&from_archive).unwrap();
        shell::run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&from_archive)).unwrap();
        shell::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&installed)).unwrap();
        for directory in [from_archive, installed.join("usr/bin")] {
            let said = shell::output(Command::new(directory.join("nex")).arg("--version")).unwrap();
            assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
            assert!(directory.join("nex-agent").is_file());
        }
        let said = shell::output(Command::new("dpkg-deb").arg("-f").arg(package)).unwrap();
        assert!(said.contains("Package: nex\n") && said.contains("Recommends: nats-server"), "{said}");
        let configuration = installed.join("etc/nex/node.json");
        let mut check = Command::new(installed.join("usr/bin/nex"));
        check.args(["node", "up", "--check", "--config"]).arg(&configuration).arg("--state-dir").arg(out.path().join("state"));
        shell::run(&mut check).unwrap();
        assert!(fs::read_to_string(installed.join("usr/share/bash-completion/completions/nex")).unwrap().contains("complete"));
    }

    #[test]
    fn the_document_shows_the_service_that_is_installed() {
        let document = fs::read_to_string(shell::root().join("docs/node.md")).unwrap();
        assert!(document.contains(&format!("```ini\n{SERVICE}```")), "docs/node.md shows another unit than the package has");
    }
}
