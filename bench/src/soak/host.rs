//! What a node has of its host: memory, descriptors, threads, processes, network devices, files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nex_protocol::id::NodeId;
use nex_testkit::eventually;

use crate::plan::TIMEOUT;
use crate::processes::memory;

/// Counted at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) node_mib: f64,
    pub(crate) node_descriptors: usize,
    pub(crate) node_threads: usize,
    pub(crate) bus_mib: f64,
    pub(crate) processes: usize,
    pub(crate) devices: usize,
    pub(crate) files: usize,
    pub(crate) disk_kib: u64,
}

impl Usage {
    /// Of a node with this process id and state directory.
    pub(crate) fn of(node: &NodeId, pid: u32, state_dir: &Path) -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
        let processes = processes_of(state_dir);
        let bus = processes.iter().find(|(_, line)| line.contains("server.conf")).map(|(pid, _)| *pid);
        let mut files = (0, 0);
        walk(state_dir, &mut files);
        Self {
            node_mib: memory(pid),
            node_descriptors: count("fd"),
            node_threads: count("task"),
            bus_mib: bus.map_or(0.0, memory),
            processes: processes.len(),
            devices: devices_of(node),
            files: files.0,
            disk_kib: files.1 / 1024,
        }
    }
}

/// Processes whose program, command line or directory is in a node's state directory, with their command lines.
pub(crate) fn processes_of(state_dir: &Path) -> BTreeMap<u32, String> {
    let of = |pid: u32| {
        let proc = format!("/proc/{pid}");
        let line = String::from_utf8_lossy(&fs::read(format!("{proc}/cmdline")).ok()?).replace('\0', " ");
        let is_in = |link: &str| fs::read_link(format!("{proc}/{link}")).is_ok_and(|path| path.starts_with(state_dir));
        (line.contains(&*state_dir.to_string_lossy()) || is_in("cwd") || is_in("exe")).then_some((pid, line))
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let others = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| *pid != std::process::id());
    others.filter_map(of).collect()
}

/// Network devices of a node, which have the beginning of its id in their alias.
pub(crate) fn devices_of(node: &NodeId) -> usize {
    let owner: String = node.as_str().chars().skip(1).take(12).collect::<String>().to_lowercase();
    let all = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    all.filter(|device| fs::read_to_string(device.path().join("ifalias")).is_ok_and(|alias| alias.contains(&owner))).count()
}

/// Number and bytes of the files beneath a directory.
fn walk(dir: &Path, sum: &mut (usize, u64)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(found) if found.is_dir() => walk(&entry.path(), sum),
            Ok(found) => *sum = (sum.0 + 1, sum.1 + found.len()),
            Err(_gone) => {}
        }
    }
}

/// What is left of a node that has stopped; nothing, if all is well.
pub(crate) async fn left_of(node: &NodeId, state_dir: &Path) -> Option<String> {
    let is_clean = || async { processes_of(state_dir).is_empty() && devices_of(node) == 0 };
    if eventually(TIMEOUT, is_clean).await {
        return None;
    }
    Some(format!("left of the node: {:?}, {} devices", processes_of(state_dir), devices_of(node)))
}
