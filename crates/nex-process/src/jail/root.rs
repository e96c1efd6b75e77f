//! The new root directory: in memory, nearly empty, read-only in the end, with only what a program needs to run.
//!
//! It is mounted over the artifact directory (the one place that surely exists), becomes `/` with the host's root at `/old`, is filled
//! from there, and then the host's root is let go. Runs in the init, so that `/proc` shows the new pid namespace.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode as FileMode;
use nix::unistd::{chdir, pivot_root, sethostname};

use super::error::JailError;
use super::places::{
    ALLOW, HARDENED, RESOLV_CONF, accounts, bind, cut_off, devices, in_old, make_dir, memory, owner, proc, put, size,
};
use super::spec::JailSpec;

/// Directories of programs and libraries; those that are links on the host are links in the jail.
pub(super) const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// What of `/etc` programs need to resolve names, check certificates and find libraries; never where private keys are.
pub(super) const ETC: [&str; 13] = [
    "ssl/certs",
    "ssl/cert.pem",
    "ssl/openssl.cnf",
    "pki/tls/certs",
    "pki/ca-trust/extracted",
    "ca-certificates",
    "crypto-policies",
    RESOLV_CONF,
    "hosts",
    "nsswitch.conf",
    "localtime",
    "alternatives",
    "ld.so.cache",
];
/// Where the host's root is until it is let go.
const OLD: &str = "/old";

/// Builds the root and moves into it.
pub(super) fn build(spec: &JailSpec) -> Result<(), JailError> {
    cut_off()?;
    // Links of /etc may lead anywhere on the host, so they are followed while the host's root is still ours.
    let etc = ETC.map(|name| (name, fs::canonicalize(Path::new("/etc").join(name))));
    become_root(&spec.artifact_dir).map_err(JailError::step("changing the root directory", ALLOW))?;
    for name in SYSTEM {
        put(Path::new("/").join(name), system)?;
    }
    for (name, source) in etc {
        let path = Path::new("/etc").join(name);
        match (&spec.resolv_conf, source) {
            (Some(text), _) if name == RESOLV_CONF => {
                make_dir(Path::new("/etc"))?;
                put(path, |path| fs::write(path, text))?;
            }
            (_, Ok(source)) => put(path, |path| bind(&in_old(OLD, &source), path))?,
            (_, Err(_absent)) => {}
        }
    }
    make_dir(Path::new("/etc"))?;
    let (uid, gid) = owner(spec);
    put("/etc/passwd".into(), |path| fs::write(path, accounts(uid, gid)))?;
    put("/etc/group".into(), |path| fs::write(path, format!("root:x:0:\nnex:x:{gid}:\n")))?;
    devices(spec, OLD)?;
    put("/proc".into(), proc)?;
    put("/tmp".into(), |path| memory(path, &format!("mode=1777,{}", size(spec)), HARDENED))?;
    let options = format!("mode=0700,uid={uid},gid={gid},{}", size(spec));
    put("/work".into(), |path| memory(path, &options, HARDENED))?;
    put("/artifact".into(), |path| bind(&in_old(OLD, &spec.artifact_dir), path))?;
    sethostname("nex").map_err(JailError::step("setting the host name", ALLOW))?;
    let_go().map_err(JailError::step("letting go of the host's root directory", ALLOW))
}

fn become_root(place: &Path) -> nix::Result<()> {
    mount(Some("nex"), place, Some("tmpfs"), HARDENED, Some("size=4m,nr_inodes=1024,mode=0755"))?;
    chdir(place)?;
    nix::unistd::mkdir("old", FileMode::S_IRWXU)?;
    pivot_root(".", "old")?;
    chdir("/")
}

fn let_go() -> io::Result<()> {
    umount2("/old", MntFlags::MNT_DETACH)?;
    fs::remove_dir("/old")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | HARDENED, none)?;
    Ok(())
}

fn system(path: &Path) -> io::Result<()> {
    let source = in_old(OLD, path);
    match fs::symlink_metadata(&source) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.is_symlink() => symlink(fs::read_link(source)?, path),
        Ok(_) => bind(&source, path),
    }
}
