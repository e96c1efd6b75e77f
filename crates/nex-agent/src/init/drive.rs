//! Drives that get their contents while the machine runs: a placeholder at the start, an image of one file at a deploy.
//!
//! A guest asks for a drive's size once, when its driver binds. So it is unbound and bound again before the drive is mounted,
//! which works whatever a monitor tells of a change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nex_process::Deadline;
use nix::mount::{MsFlags, mount};

use super::agent::ARTIFACT;
use super::mounts::directory;

/// Time for all of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks for the disk.
const PAUSE: Duration = Duration::from_millis(2);
/// Drives after the root that may be asked for.
const SLOTS: u8 = 8;
/// The one file in an artifact's image.
const FILE: &str = "artifact";

/// Mounts what is in a drive now; says where its file is, or why not.
pub(super) async fn attach(slot: u8) -> Result<String, String> {
    // The kernel may take its time over a drive, and this is the only thread: not here.
    let work = tokio::task::spawn_blocking(move || rebind(slot));
    let device = match Deadline::after(PATIENCE).bound(work).await {
        Ok(Ok(device)) => device,
        Ok(Err(stopped)) => Err(stopped.into()),
        Err(_elapsed) => Err(anyhow::anyhow!("its driver did not answer in {PATIENCE:?}; next: look at the monitor's log")),
    };
    let mounted = device.and_then(|device| mount_at(&device, &place(slot)));
    mounted.map_err(|error| format!("cannot attach drive {slot}: {error:#}"))
}

/// Where the drive of a slot is mounted: the first is the artifact.
fn place(slot: u8) -> String {
    if slot == 0 { ARTIFACT.to_owned() } else { format!("{ARTIFACT}{slot}") }
}

/// Has the driver look at the drive anew; its device.
fn rebind(slot: u8) -> anyhow::Result<PathBuf> {
    if slot >= SLOTS {
        bail!("there are {SLOTS} slots, from 0; next: ask for one of these");
    }
    let disk = format!("vd{}", char::from(b'b' + slot));
    if mounted(&place(slot))? {
        bail!("this guest has it already; next: use a new guest");
    }
    let device = fs::canonicalize(format!("/sys/block/{disk}/device"))
        .with_context(|| format!("there is no disk {disk}; next: give the machine this drive at its start"))?;
    let name = device.file_name().context("the disk has no device")?.to_owned();
    let driver = fs::canonicalize(device.join("driver")).context("the disk has no driver")?;
    fs::write(driver.join("unbind"), name.as_encoded_bytes()).context("cannot unbind the driver")?;
    fs::write(driver.join("bind"), name.as_encoded_bytes()).context("cannot bind the driver")?;
    let block = device.join("block");
    // Bound means that there is a disk; its name and its node are there at once, or a moment later.
    let end = std::time::Instant::now() + PATIENCE / 2;
    loop {
        let disk = fs::read_dir(&block).ok().and_then(|mut disks| disks.find_map(Result::ok));
        match disk.map(|disk| Path::new("/dev").join(disk.file_name())).filter(|node| node.exists()) {
            Some(node) => return Ok(node),
            None if std::time::Instant::now() < end => std::thread::park_timeout(PAUSE),
            None => bail!("the disk did not come back"),
        }
    }
}

fn mount_at(device: &Path, place: &str) -> anyhow::Result<String> {
    directory(place)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(device), place, Some("erofs"), flags, None::<&str>).context("it holds no image that can be mounted")?;
    let file = format!("{place}/{FILE}");
    match fs::symlink_metadata(&file) {
        Ok(found) if found.is_file() => Ok(file),
        Ok(_) => bail!("{file} is not a file"),
        Err(error) => Err(error).with_context(|| format!("the image has no file '{FILE}'")),
    }
}

fn mounted(place: &str) -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(place)))
}
