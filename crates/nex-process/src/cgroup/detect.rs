//! Finds the places where groups can be made: reads where the hierarchies are mounted, then makes a group in each and removes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Controller, Place};
use crate::confinement::CgroupVersion;

/// A mounted hierarchy, as far as it concerns us.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    point: PathBuf,
    /// The group that this process is in.
    own: PathBuf,
    version: CgroupVersion,
    /// v1: the controllers mounted here.
    controllers: Vec<Controller>,
}

pub(super) fn places() -> Vec<Place> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found: Vec<Place> = Vec::new();
    // The unified hierarchy comes last in the list of places, but has the first choice of controllers.
    let (unified, separate): (Vec<_>, Vec<_>) =
        hierarchies(&mounts, &groups).into_iter().partition(|hierarchy| hierarchy.version == CgroupVersion::V2);
    let unified = unified.iter().find_map(unified_place);
    let taken = unified.as_ref().map_or(&[][..], |place| &place.controllers);
    for hierarchy in separate {
        let wanted: Vec<_> = hierarchy.controllers.iter().copied().filter(|controller| !taken.contains(controller)).collect();
        if found.iter().all(|place| place.base != hierarchy.own) && !wanted.is_empty() {
            found.extend(trial(Place { base: hierarchy.own, version: CgroupVersion::V1, controllers: wanted }));
        }
    }
    found.extend(unified);
    found
}

/// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn hierarchies(mounts: &str, groups: &str) -> Vec<Hierarchy> {
    mounts.lines().filter_map(|line| hierarchy(line, groups)).collect()
}

fn hierarchy(line: &str, groups: &str) -> Option<Hierarchy> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (mount.next()?, PathBuf::from(mount.next()?));
    let mut filesystem = filesystem.split(' ');
    let kind = filesystem.next()?;
    let options: Vec<_> = filesystem.nth(1)?.split(',').collect();
    let (version, controllers) = match kind {
        "cgroup2" => (CgroupVersion::V2, Vec::new()),
        "cgroup" => (CgroupVersion::V1, Controller::ALL.into_iter().filter(|found| options.contains(&found.name())).collect()),
        _ => return None,
    };
    let own = groups.lines().find_map(|group| {
        let mut fields = group.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let mine = match version {
            CgroupVersion::V2 => names.is_empty(),
            _ => controllers.iter().any(|found: &Controller| names.split(',').any(|name| name == found.name())),
        };
        mine.then_some(path)
    })?;
    // What is mounted may itself be a group inside the hierarchy, in a container.
    let inside = Path::new(own).strip_prefix(root).unwrap_or(Path::new(""));
    Some(Hierarchy { own: point.join(inside), point, version, controllers })
}

/// Groups with limits can only be made where no process is (the top excepted): beside us or at the top, seldom below us.
fn unified_place(hierarchy: &Hierarchy) -> Option<Place> {
    let mut bases = vec![hierarchy.own.clone()];
    if nix::unistd::geteuid().is_root() {
        bases.push(hierarchy.point.clone());
    }
    if hierarchy.own != hierarchy.point {
        bases.extend(hierarchy.own.parent().map(Path::to_path_buf));
    }
    let places: Vec<_> = bases.into_iter().filter_map(unified_trial).collect();
    // Without controllers a group still can be killed as one.
    places.iter().find(|place| place.controllers.len() == Controller::ALL.len()).or_else(|| places.first()).cloned()
}

fn unified_trial(base: PathBuf) -> Option<Place> {
    let list = |file: &str| {
        let text = fs::read_to_string(base.join(file)).unwrap_or_default();
        Controller::ALL.into_iter().filter(|found| text.split_whitespace().any(|name| name == found.name())).collect::<Vec<_>>()
    };
    for controller in list("cgroup.controllers") {
        // Refused where processes are, or where it is not ours; what is on in the end counts.
        let _refused = fs::write(base.join("cgroup.subtree_control"), format!("+{}", controller.name()));
    }
    let controllers = list("cgroup.subtree_control");
    trial(Place { base, version: CgroupVersion::V2, controllers })
}

/// Makes a group, writes to it as to a real one, and removes it.
fn trial(place: Place) -> Option<Place> {
    static TRIALS: AtomicU64 = AtomicU64::new(0);
    let number = TRIALS.fetch_add(1, Ordering::Relaxed);
    let dir = place.base.join(format!("nex-trial-{}-{number}", std::process::id()));
    fs::create_dir(&dir).ok()?;
    let controllers = place.controllers.iter().copied().filter(|controller| limits(&dir, place.version, *controller)).collect();
    // A process can be moved only by who may write to the group above both.
    let movable = fs::OpenOptions::new().write(true).open(place.base.join("cgroup.procs")).is_ok();
    let removed = fs::remove_dir(&dir).is_ok();
    let useful = |place: &Place| place.version == CgroupVersion::V2 || !place.controllers.is_empty();
    Some(Place { controllers, ..place }).filter(|place| removed && movable && useful(place))
}

fn limits(dir: &Path, version: CgroupVersion, controller: Controller) -> bool {
    let (file, value) = match (version, controller) {
        (CgroupVersion::V2, Controller::Memory) => ("memory.max", "max"),
        (CgroupVersion::V2, Controller::Cpu) => ("cpu.max", "max"),
        (_, Controller::Pids) => ("pids.max", "max"),
        (_, Controller::Memory) => ("memory.limit_in_bytes", "-1"),
        (_, Controller::Cpu) => ("cpu.cfs_quota_us", "-1"),
    };
    fs::OpenOptions::new().write(true).open(dir.join(file)).is_ok() && fs::write(dir.join(file), value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_as_the_kernel_writes_them() {
        let mounts = "27 1 254:0 / / rw - ext4 /dev/vda rw\n\
                      35 31 0:32 / /cg/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
                      36 31 0:33 /box /cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw\n";
        let groups = "9:name=systemd:/\n4:memory:/here/we\n1:cpu,cpuacct:/box/inner\n0::/slice/us\n";
        let read = hierarchies(mounts, groups);
        let own: Vec<_> = read.iter().map(|hierarchy| hierarchy.own.to_str().unwrap()).collect();
        assert_eq!(own, ["/cg/memory/here/we", "/cg/cpu,cpuacct/inner", "/cg/unified/slice/us"]);
        assert_eq!(read[0].controllers, [Controller::Memory]);
        assert_eq!(read[1].controllers, [Controller::Cpu]);
        assert_eq!(read[2].version, CgroupVersion::V2);
    }
}
