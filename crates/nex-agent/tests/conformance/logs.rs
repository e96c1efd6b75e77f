//! Log lines: lossy, bounded in length and bytes whatever a workload writes, and what was lost is said.

use std::collections::HashSet;
use std::path::PathBuf;

use nex_protocol::agent::{Answer, Logs};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::id::InstanceId;
use nex_testkit::eventually;

use crate::node::{Node, TIMEOUT};

/// What a workload writes while nobody listens, and by how much its agent may grow meanwhile, bytes.
const WRITTEN: u64 = 256 * 1024 * 1024;
const GROWTH: u64 = 16 * 1024 * 1024;

/// A process and all that it has started, by their directories in `/proc`.
fn family(leader: i32) -> Vec<PathBuf> {
    let mut known = HashSet::from([leader]);
    let parents: Vec<(i32, i32)> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, parent))
        })
        .collect();
    // As deep as a jail is.
    for _ in 0..5 {
        known.extend(parents.iter().filter(|(_, parent)| known.contains(parent)).map(|(pid, _)| *pid).collect::<Vec<_>>());
    }
    known.into_iter().map(|pid| PathBuf::from(format!("/proc/{pid}"))).collect()
}

/// The number behind a name in a file of each process, the greatest of them.
fn greatest(leader: i32, file: &str, name: &str) -> u64 {
    let number =
        |text: String| text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok());
    family(leader)
        .iter()
        .filter_map(|dir| std::fs::read_to_string(dir.join(file)).ok().and_then(number))
        .max()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_lines_while_the_bus_is_away_costs_bounded_memory_and_is_counted() {
    let mut node = Node::start().await;
    // Characters that become six bytes of JSON each; and a line longer than any.
    let flood =
        format!("#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' x; echo\nexec yes \"$(printf '{}')\"\n", "\\001".repeat(1_000));
    let service = node.prepare(WorkloadType::Native, "flood", flood.as_bytes()).await;
    let leader = node.sandbox.record().leader.pid;
    assert_eq!(node.deploy(&InstanceId::new(1), &service).await, Answer::Done);
    let first = node.logs().await;
    assert!(first.lines.iter().any(|line| line.text.len() >= 1_000));
    let (written, memory) = (greatest(leader, "io", "wchar: "), greatest(leader, "status", "VmHWM:"));
    node.server.kill9();
    let flooded = eventually(TIMEOUT, || std::future::ready(greatest(leader, "io", "wchar: ") > written + WRITTEN));
    assert!(flooded.await, "the workload is slowed down by its log");
    let grown = (greatest(leader, "status", "VmHWM:") - memory) * 1024;
    assert!(grown < GROWTH, "the agent grew by {grown} bytes");
    node.server.restart().await;
    while node.logs().await.dropped == 0 {}
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_nobody_took_are_sent_again_under_their_number_and_the_next_ones_wait() {
    let mut node = Node::start().await;
    let script = b"#!/bin/sh\necho one\nsleep 0.5\necho two\nexec sleep 1000\n";
    let service = node.prepare(WorkloadType::Native, "talker", script).await;
    assert_eq!(node.deploy(&InstanceId::new(1), &service).await, Answer::Done);
    let text = |logs: &Logs| logs.lines.iter().map(|line| line.text.clone()).collect::<Vec<_>>();
    let (first, lines) = node.lines(false).await;
    assert_eq!(text(&lines), ["one"], "L3");
    for take in [false, true] {
        let (number, lines) = node.lines(take).await;
        assert_eq!((number, text(&lines)), (first, vec!["one".to_owned()]), "L3");
    }
    let (number, lines) = node.lines(true).await;
    assert!(number > first, "L3: {number} after {first}");
    assert_eq!(text(&lines), ["two"], "L3");
}
