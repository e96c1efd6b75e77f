//! The root of a workload that comes as an image: the image itself, memory over it, and over that the jail's own places.
//!
//! The image's builder has put a directory or file wherever something is mounted ([`IMAGE_DIRECTORIES`], [`IMAGE_FILES`]), and links that
//! a hostile image might have there lead to mounts in this namespace only.
//! The mount, and the loop device under it, go with the last process of the jail, whoever dies first.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root, sethostname};

use super::error::JailError;
use super::overlay::lay_over;
use super::places::{ALLOW, HARDENED, RESOLV_CONF, bind, cut_off, devices, harden, in_old, memory, owner, proc, put, size};
use super::spec::JailSpec;

/// Directories that an image must have for a jail to be made of it, relative to its root.
pub const IMAGE_DIRECTORIES: [&str; 8] = ["proc", "dev", "tmp", "work", "etc", ".nex", ".nex/old", ".nex/own"];
/// Files that an image must have for a jail to be made of it, relative to its root.
pub const IMAGE_FILES: [&str; 4] = ["etc/passwd", "etc/group", "etc/resolv.conf", "etc/hosts"];

/// Where the host's root is until it is let go.
const OLD: &str = "/.nex/old";
/// Memory for files of the jail's own that are mounted over the image's.
const OWN: &str = "/.nex/own";
/// Longest list of accounts taken from an image.
const MAX_ACCOUNTS: u64 = 256 * 1024;
/// Loop devices that others may take between finding one and using it.
const MAX_TRIES: u32 = 16;

const IMAGE: &str =
    "use a kernel with EROFS (modprobe erofs) and loop devices (modprobe loop), and see that the image's file is there";

/// Makes the image the root and moves into it.
pub(super) fn build(spec: &JailSpec, image: &Path) -> Result<(), JailError> {
    cut_off()?;
    become_root(spec, image)?;
    let (uid, gid) = owner(spec);
    put("/dev".into(), |path| memory(path, "size=1m,nr_inodes=64,mode=0755", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC))?;
    devices(spec, OLD)?;
    put("/dev".into(), |path| remount_read_only(path, MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC))?;
    put("/proc".into(), proc)?;
    put("/tmp".into(), |path| memory(path, &format!("mode=1777,{}", size(spec)), HARDENED))?;
    let options = format!("mode=0700,uid={uid},gid={gid},{}", size(spec));
    put("/work".into(), |path| memory(path, &options, HARDENED))?;
    put(OWN.into(), |path| memory(path, "size=4m,nr_inodes=64,mode=0755", HARDENED))?;
    own_file("etc/passwd", |own| accounts(own, "/etc/passwd", &format!("nex:x:{uid}:{gid}:nex:/work:/bin/sh")))?;
    own_file("etc/group", |own| accounts(own, "/etc/group", &format!("nex:x:{gid}:")))?;
    for (name, given) in [(RESOLV_CONF, spec.resolv_conf.as_deref()), ("hosts", None)] {
        own_file(&format!("etc/{name}"), |own| match given {
            Some(text) => fs::write(own, text),
            // What the host lacks is empty here.
            None => fs::write(own, fs::read(in_old(OLD, &Path::new("/etc").join(name))).unwrap_or_default()),
        })?;
    }
    put(OWN.into(), |path| Ok(umount2(path, MntFlags::MNT_DETACH)?))?;
    sethostname("nex").map_err(JailError::step("setting the host name", ALLOW))?;
    umount2(OLD, MntFlags::MNT_DETACH).map_err(JailError::step("letting go of the host's root directory", ALLOW))
}

fn become_root(spec: &JailSpec, image: &Path) -> Result<(), JailError> {
    let place = &spec.artifact_dir;
    let mounted = if image.is_dir() { bind(image, place) } else { mount_image(image, place) };
    mounted.map_err(JailError::step("mounting the image", IMAGE))?;
    lay_over(spec, place)?;
    let enter = || -> nix::Result<()> {
        chdir(place)?;
        pivot_root(".", OLD.trim_start_matches('/'))?;
        chdir("/")
    };
    enter().map_err(JailError::step("changing the root directory to the image", ALLOW))
}

/// Writes a file of the jail's own and mounts it over the image's.
fn own_file(name: &str, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), JailError> {
    put(Path::new("/").join(name), |path| {
        let own = Path::new(OWN).join(name.replace('/', "-"));
        write(&own)?;
        let none: Option<&str> = None;
        mount(Some(&own), path, none, MsFlags::MS_BIND, none)?;
        harden(path)
    })
}

/// The image's own accounts, and one for the workload's uid: programs look themselves up.
fn accounts(own: &Path, path: &str, line: &str) -> io::Result<()> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_ACCOUNTS).read_to_end(&mut text)?;
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    fs::write(own, [text.as_slice(), line.as_bytes(), b"\n"].concat())
}

fn remount_read_only(path: &Path, flags: MsFlags) -> io::Result<()> {
    let none: Option<&str> = None;
    Ok(mount(none, path, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | flags, none)?)
}

/// Mounts the file of an image: by itself where the kernel can (Linux 6.12), else through a loop device that goes with the mount.
fn mount_image(image: &Path, place: &Path) -> io::Result<()> {
    let flags = HARDENED | MsFlags::MS_RDONLY;
    if mount(Some(image), place, Some("erofs"), flags, None::<&str>).is_ok() {
        return Ok(());
    }
    let file = File::open(image)?;
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..MAX_TRIES {
        let number = ioctl(&control, LOOP_CTL_GET_FREE, 0)?;
        let device = format!("/dev/loop{number}");
        let opened = File::open(&device)?;
        let config = LoopConfig::read_only(&file);
        match ioctl(&opened, LOOP_CONFIGURE, (&raw const config) as usize) {
            Ok(_) => return Ok(mount(Some(device.as_str()), place, Some("erofs"), flags, None::<&str>)?),
            // Somebody was faster.
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no loop device is free"))
}

const LOOP_CTL_GET_FREE: nix::libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: nix::libc::Ioctl = 0x4c0a;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_config` of linux/loop.h, with its `struct loop_info64` inside.
#[repr(C)]
struct LoopConfig {
    file: u32,
    block_size: u32,
    /// Device, inode, rdevice, offset, size limit.
    numbers: [u64; 5],
    /// Number, encryption type, length of its key.
    more: [u32; 3],
    flags: u32,
    /// Two names and a key.
    names: [u8; 64 + 64 + 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

impl LoopConfig {
    fn read_only(file: &File) -> Self {
        Self {
            file: file.as_raw_fd().unsigned_abs(),
            block_size: 0,
            numbers: [0; 5],
            more: [0; 3],
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
            names: [0; 160],
            init: [0; 2],
            reserved: [0; 8],
        }
    }
}

#[expect(unsafe_code, reason = "the ioctls of loop devices have no safe wrapper")]
fn ioctl(file: &File, request: nix::libc::Ioctl, argument: usize) -> io::Result<i32> {
    // SAFETY: the descriptor is open; the argument is ignored or the address of a `LoopConfig` that outlives the call, which only reads it.
    let result = unsafe { nix::libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_devices_configuration_has_the_kernels_shape() {
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(std::mem::offset_of!(LoopConfig, flags), 8 + 40 + 12);
    }

    #[test]
    fn an_images_accounts_are_kept_and_the_workloads_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let (from, own) = (dir.path().join("passwd"), dir.path().join("own"));
        fs::write(&from, "root:x:0:0::/root:/bin/sh").unwrap();
        accounts(&own, from.to_str().unwrap(), "nex:x:7:7::/work:").unwrap();
        assert_eq!(fs::read_to_string(&own).unwrap(), "root:x:0:0::/root:/bin/sh\nnex:x:7:7::/work:\n");
    }
}
