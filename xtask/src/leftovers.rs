//! Finds what a node left behind: processes, cgroups, mounts, sockets; of its guests devices, namespaces, tables of the packet filter,
//! addresses, directories.
//!
//! Only descendants of the node and objects with its name count, so other nodes on the machine do not matter.

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

    /// Records the current descendants; call it whenever something may have been started.
    pub(crate) fn look(&mut self) {
        let all = processes();
        let mut family = BTreeSet::from([self.root]);
        // Parents may have higher pids than their children: repeat until nothing is added.
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

    /// Describes what is still there; `dir` is the node's state directory.
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

/// Describes what is left of a node's guests on the host; `state` is the node's state directory. Asks the kernel, not the node.
pub(crate) fn of_guests(node: &str, state: &Path) -> Vec<String> {
    let owner: String = node.chars().skip(1).take(12).collect::<String>().to_lowercase();
    let mut left = Vec::new();
    let devices = output_of("ip", &["-o", "link"]);
    let is_ours = |line: &&str| {
        let alias = line.split_once(" alias ").map(|(_, alias)| alias.split(' ').next().unwrap_or_default());
        alias.is_some_and(|alias| alias == format!("nex:{owner}") || alias.starts_with(&format!("nex:{owner}:")))
    };
    left.extend(devices.lines().filter(is_ours).map(|line| format!("device {line}")));
    let namespaces = names_in(Path::new("/run/netns")).into_iter().filter(|name| name.starts_with(&format!("nex-{owner}-")));
    left.extend(namespaces.map(|name| format!("namespace {name}")));
    let tables = output_of("nft", &["list", "tables"]);
    left.extend(tables.lines().filter(|line| line.ends_with(&format!("nex_{owner}"))).map(str::to_owned));
    for place in ["agents", "network"] {
        files(&state.join("node").join(place), &mut left);
    }
    left
}

/// The output of a program; empty if it is not installed, because then it left nothing.
fn output_of(program: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(program).args(args).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Every file below a directory, except locks and marks of the plug-ins.
fn files(dir: &Path, left: &mut Vec<String>) {
    for name in names_in(dir) {
        let path = dir.join(&name);
        if path.is_dir() {
            files(&path, left);
        } else if !["lock", "last_reserved_ip.0"].contains(&name.as_str()) {
            left.push(format!("file {}", path.display()));
        }
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
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

/// Reads `/proc/<pid>/stat`: `pid (name) state ppid …`, start time in field 22; the name may contain anything, even `)`.
fn parse_stat(stat: &str) -> Option<Process> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (pid, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    // A zombie holds no resources; its parent has not reaped it yet.
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
