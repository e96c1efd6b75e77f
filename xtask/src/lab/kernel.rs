//! The lab's kernel: Debian's own, unpacked into the target directory, and the initramfs that mounts the host's root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell::{output, run};

/// The package that depends on the current kernel.
const PACKAGE: &str = "linux-image-amd64";
/// Modules needed before more can be loaded from the host's root.
const MODULES: [&str; 5] = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console"];

/// A kernel with its modules.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// `lib/modules/<version>`
    pub(super) modules: PathBuf,
    version: String,
}

/// Downloads and unpacks the kernel below a directory, unless it is there.
pub(super) fn get(dir: &Path) -> Result<Kernel> {
    let root = dir.join("kernel");
    if let Ok(kernel) = find(&root) {
        return Ok(kernel);
    }
    let depends = output(Command::new("apt-cache").args(["depends", PACKAGE]))?;
    let package =
        depends.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).filter(|it| it.starts_with("linux-image-"));
    let package = package.with_context(|| format!("apt knows no {PACKAGE}; next: apt-get update"))?;
    println!("fetching the lab's kernel ({package}, by apt-get download)");
    let draft = dir.join("draft");
    if draft.exists() {
        std::fs::remove_dir_all(&draft)?;
    }
    std::fs::create_dir_all(draft.join("root"))?;
    run(Command::new("apt-get").args(["download", "--quiet", package]).current_dir(&draft))?;
    let archive = names_in(&draft)?.into_iter().find(|name| name.ends_with(".deb")).context("apt-get downloaded no package")?;
    run(Command::new("dpkg-deb").arg("-x").arg(draft.join(archive)).arg(draft.join("root")))?;
    let kernel = find(&draft.join("root"))?;
    run(Command::new("/usr/sbin/depmod").arg("-b").arg(draft.join("root")).arg(&kernel.version))?;
    if root.exists() {
        std::fs::remove_dir_all(&root)?;
    }
    std::fs::rename(draft.join("root"), &root)?;
    std::fs::remove_dir_all(&draft)?;
    find(&root)
}

fn find(root: &Path) -> Result<Kernel> {
    let version = names_in(&root.join("lib/modules"))?.pop().context("the package has no modules")?;
    let image = root.join("boot").join(format!("vmlinuz-{version}"));
    if !image.is_file() {
        bail!("there is no {}", image.display());
    }
    Ok(Kernel { image, modules: root.join("lib/modules").join(&version), version })
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// Writes the initramfs into a directory: one static program, one script, the modules in the order in which they can be loaded.
pub(super) fn initramfs(kernel: &Kernel, busybox: &Path, dir: &Path) -> Result<PathBuf> {
    let tree = dir.join("initramfs");
    for name in ["bin", "dev", "proc", "sys", "modules"] {
        std::fs::create_dir_all(tree.join(name))?;
    }
    std::fs::copy(busybox, tree.join("bin/busybox"))?;
    for applet in ["sh", "mount", "umount", "insmod", "mkdir", "switch_root"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet))?;
    }
    let init = tree.join("init");
    std::fs::write(&init, include_str!("init"))?;
    std::fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let table = std::fs::read_to_string(kernel.modules.join("modules.dep")).context("the kernel has no modules.dep")?;
    let files = in_order(&table, &MODULES)?;
    let mut order = String::new();
    for file in files {
        let name = file.rsplit('/').next().unwrap_or(file);
        std::fs::copy(kernel.modules.join(file), tree.join("modules").join(name))?;
        order += &format!("{name}\n");
    }
    std::fs::write(tree.join("modules/order"), order)?;
    let archive = dir.join("initramfs.cpio");
    let pack = format!("cd \"$1\" && find . | {} cpio -o -H newc >\"$2\"", busybox.display());
    output(Command::new("sh").args(["-c", &pack, "sh"]).arg(&tree).arg(&archive))?;
    Ok(archive)
}

/// The files of modules and of all that they need, dependencies first. The table is `modules.dep`.
fn in_order<'a>(table: &'a str, wanted: &[&str]) -> Result<Vec<&'a str>> {
    let name = |file: &str| file.rsplit('/').next().and_then(|it| it.split('.').next()).unwrap_or_default().replace('-', "_");
    let lines = table.lines().filter_map(|line| line.split_once(':'));
    let needs: BTreeMap<String, (&str, &str)> = lines.map(|(file, needs)| (name(file), (file, needs))).collect();
    let mut files: Vec<&str> = Vec::new();
    for module in wanted {
        let (file, needed) = needs.get(*module).with_context(|| format!("the kernel has no module {module}"))?;
        // The last one is needed by those before it.
        for file in needed.split_whitespace().rev().chain([*file]) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_loaded_before_it() {
        let table =
            "fs/9p/9p.ko: net/9p/9pnet.ko fs/netfs.ko\nnet/9p/9pnet.ko:\nfs/netfs.ko:\nnet/9p/9pnet-virtio.ko: net/9p/9pnet.ko\n";
        let files = in_order(table, &["9p", "9pnet_virtio"]).unwrap();
        assert_eq!(files, ["fs/netfs.ko", "net/9p/9pnet.ko", "fs/9p/9p.ko", "net/9p/9pnet-virtio.ko"]);
        assert!(in_order(table, &["kvm"]).is_err());
    }
}
