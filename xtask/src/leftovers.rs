//! What a node started, and whether anything of it is still there afterwards: processes, cgroups, mounts, sockets.
//!
//! It looks at what really descends from the node instead of at names, so that other nodes on the machine do not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// Everything seen to descend from one process.
#[derive(Debug)]
pub(crate) struct Watch {
    root: u32,
    own_cgroup: String,
    /// Name and cgroup of each process seen; a pid alone may be reused, with its start time it is not.
    seen: BTreeMap<(u32, String), Seen>,
}

#[derive(Debug, Clone)]
struct Seen {
    name: String,
    cgroup: String,
}

/// A line of `/proc`: pid, parent, start time.
struct Process {
    pid: u32,
    parent: u32,
    name: String,
    started: String,
}

impl Watch {
    /// Starts to watch a process and its descendants.
    pub(crate) fn new(root: u32) -> Self {
        Self { root, own_cgroup: cgroup_of("self"), seen: BTreeMap::new() }
    }

    /// Takes note of what is there now; to be called whenever something may have been started.
    pub(crate) fn look(&mut self) {
        let all = processes();
        let mut family = BTreeSet::from([self.root]);
        // Parents may have higher pids than their children: go on until nobody is added.
        loop {
            let before = family.len();
            family.extend(
                all.iter().filter(|process| family.contains(&process.parent)).map(|process| process.pid).collect::<Vec<_>>(),
            );
            if family.len() == before {
                break;
            }
        }
        for process in all.into_iter().filter(|process| family.contains(&process.pid)) {
            let seen = Seen { name: process.name, cgroup: cgroup_of(&process.pid.to_string()) };
            self.seen.insert((process.pid, process.started), seen);
        }
    }

    /// The names of the processes seen, each with its count.
    pub(crate) fn names(&self) -> String {
        let mut counts = BTreeMap::<&str, usize>::new();
        for seen in self.seen.values() {
            *counts.entry(&seen.name).or_default() += 1;
        }
        counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    }

    /// What of all this is still there, for people; `dir` is the node's state directory.
    pub(crate) fn left(&self, dir: &Path) -> Vec<String> {
        let mut left = Vec::new();
        for process in processes() {
            if self.seen.contains_key(&(process.pid, process.started)) {
                left.push(format!("process {} {}", process.pid, process.name));
            }
        }
        let cgroups: BTreeSet<_> = self.seen.values().map(|seen| seen.cgroup.as_str()).collect();
        for cgroup in cgroups.into_iter().filter(|cgroup| !self.own_cgroup.starts_with(cgroup)) {
            let path = PathBuf::from("/sys/fs/cgroup").join(cgroup.trim_start_matches('/'));
            if path.exists() {
                left.push(format!("cgroup {}", path.display()));
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| Path::new(point).starts_with(dir));
        left.extend(mounts.map(|point| format!("mount {point}")));
        sockets(dir, &mut left);
        left
    }
}

fn sockets(dir: &Path, left: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => sockets(&entry.path(), left),
            Ok(kind) if kind.is_socket() || kind.is_fifo() => left.push(format!("socket {}", entry.path().display())),
            _ => {}
        }
    }
}

/// The cgroup (version 2) of a process; empty if there is none.
fn cgroup_of(pid: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned()
}

fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()));
    stats.filter_map(|entry| parse_stat(&std::fs::read_to_string(entry.path().join("stat")).ok()?)).collect()
}

/// Reads `/proc/<pid>/stat`: `pid (name) state ppid …`, start time in field 22; the name may hold anything, `)` too.
fn parse_stat(stat: &str) -> Option<Process> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (pid, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    // A zombie holds nothing; its parent, which may be the system's, has only not asked for it yet.
    if *fields.first()? == "Z" {
        return None;
    }
    Some(Process {
        pid: pid.trim().parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        name: name.to_owned(),
        started: (*fields.get(19)?).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_seen_and_missed_when_it_has_ended() {
        let dir = std::env::temp_dir().join(format!("nex-leftovers-{}", std::process::id()));
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let mut watch = Watch::new(child.id());
        watch.look();
        assert_eq!(watch.left(&dir).len(), 1);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(watch.left(&dir), Vec::<String>::new());
    }

    #[test]
    fn a_name_with_brackets_is_read() {
        let process = parse_stat("7 (a) (b)) S 3 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0").unwrap();
        assert_eq!((process.pid, process.parent, process.name.as_str()), (7, 3, "a) (b)"));
        assert_eq!(process.started, "4242");
    }
}
