//! Attaches drives while the machine runs: a drive holds a placeholder at boot, and after a deploy an image of one file, or the root of a
//! workload that is an image.
//!
//! The kernel reads a drive's size once, when its driver binds. So the driver is bound again before the drive is mounted; that works whether
//! or not the monitor announces the change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nex_process::Deadline;
use nix::mount::{MsFlags, mount};

use super::agent::{ARTIFACT, IMAGE};
use super::mounts::directory;

/// Longest time to attach a drive.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between two checks for the disk.
const POLL: Duration = Duration::from_millis(2);
/// Drives after the root that can be attached.
const SLOTS: u8 = 8;
/// The one file in an artifact's image.
const FILE: &str = "artifact";

/// Mounts the current image of a drive; returns the path of its file.
pub(super) async fn attach(slot: u8) -> Result<String, String> {
    let at = mount_point(slot);
    let attached = async {
        mount_at(&bind_again(slot, at.clone()).await?, &at)?;
        file_in(&at)
    };
    attached.await.map_err(|error: anyhow::Error| format!("cannot attach drive {slot}: {error:#}"))
}

/// Mounts the current image of a drive where the agent's root is made of it.
pub(super) async fn attach_root(slot: u8) -> anyhow::Result<()> {
    mount_at(&bind_again(slot, IMAGE.to_owned()).await?, IMAGE)
}

/// Binds the drive's driver again, off this thread, which is the only one and must not be blocked.
async fn bind_again(slot: u8, mount_point: String) -> anyhow::Result<PathBuf> {
    let work = tokio::task::spawn_blocking(move || rebind(slot, &mount_point));
    match Deadline::after(TIMEOUT).bound(work).await {
        Ok(Ok(device)) => device,
        Ok(Err(stopped)) => Err(stopped.into()),
        Err(_elapsed) => Err(anyhow::anyhow!("its driver did not answer in {TIMEOUT:?}; next: look at the monitor's log")),
    }
}

/// The mount point of a slot; the first drive is the artifact.
fn mount_point(slot: u8) -> String {
    if slot == 0 { ARTIFACT.to_owned() } else { format!("{ARTIFACT}{slot}") }
}

/// Binds the drive's driver again; returns the block device.
fn rebind(slot: u8, mount_point: &str) -> anyhow::Result<PathBuf> {
    if slot >= SLOTS {
        bail!("there are {SLOTS} slots, from 0; next: ask for one of these");
    }
    let disk = format!("vd{}", char::from(b'b' + slot));
    if mounted(mount_point)? {
        bail!("this guest has it already; next: use a new guest");
    }
    let device = fs::canonicalize(format!("/sys/block/{disk}/device"))
        .with_context(|| format!("there is no disk {disk}; next: give the machine this drive at its start"))?;
    let name = device.file_name().context("the disk has no device")?.to_owned();
    let driver = fs::canonicalize(device.join("driver")).context("the disk has no driver")?;
    fs::write(driver.join("unbind"), name.as_encoded_bytes()).context("cannot unbind the driver")?;
    fs::write(driver.join("bind"), name.as_encoded_bytes()).context("cannot bind the driver")?;
    let block = device.join("block");
    // The disk's name and device node may appear a moment after the driver is bound.
    let end = std::time::Instant::now() + TIMEOUT / 2;
    loop {
        let disk = fs::read_dir(&block).ok().and_then(|mut disks| disks.find_map(Result::ok));
        match disk.map(|disk| Path::new("/dev").join(disk.file_name())).filter(|node| node.exists()) {
            Some(node) => return Ok(node),
            None if std::time::Instant::now() < end => std::thread::park_timeout(POLL),
            None => bail!("the disk did not come back"),
        }
    }
}

fn mount_at(device: &Path, mount_point: &str) -> anyhow::Result<()> {
    directory(mount_point)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(device), mount_point, Some("erofs"), flags, None::<&str>).context("it holds no image that can be mounted")
}

fn file_in(mount_point: &str) -> anyhow::Result<String> {
    let file = format!("{mount_point}/{FILE}");
    match fs::symlink_metadata(&file) {
        Ok(found) if found.is_file() => Ok(file),
        Ok(_) => bail!("{file} is not a file"),
        Err(error) => Err(error).with_context(|| format!("the image has no file '{FILE}'")),
    }
}

fn mounted(mount_point: &str) -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(mount_point)))
}
