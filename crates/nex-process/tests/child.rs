//! Real children: how they start, end, are ended, and what is left of them (nothing).

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nex_process::{Child, ChildSpec, Deadline, Exit, Output, ProcessId, Rung, Signal, Stdin};
use nex_testkit::eventually;

fn shell(script: &str) -> ChildSpec {
    ChildSpec::new("/bin/sh").args(["-c", script])
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

type Seen = Arc<Mutex<Vec<String>>>;

fn collector() -> (Seen, Output) {
    let seen = Seen::default();
    let sink = Arc::clone(&seen);
    (seen, Output::Lines(Arc::new(move |line: &str| sink.lock().unwrap().push(line.to_owned()))))
}

async fn says(seen: &Seen, line: &str) {
    let said = async {
        while !seen.lock().unwrap().iter().any(|seen| seen == line) {
            tokio::task::yield_now().await;
        }
    };
    soon().bound(said).await.expect("the child says it");
}

#[tokio::test]
async fn a_child_sees_only_what_it_is_given_and_its_lines_precede_its_exit() {
    let (seen, output) = collector();
    let child = shell("cat; env | grep -v -e PWD -e SHLVL -e _=; pwd; echo oops >&2; exit 3")
        .stdin(Stdin::Bytes(b"given\n".to_vec()))
        .env("ONLY", "this")
        .current_dir("/usr")
        .stdout(output.clone())
        .stderr(output)
        .spawn()
        .unwrap();
    assert_eq!(child.exited().await, Exit { code: Some(3), signal: None });
    let mut lines = seen.lock().unwrap().clone();
    lines.sort();
    assert_eq!(lines, ["/usr", "ONLY=this", "given", "oops"]);
}

#[tokio::test]
async fn a_child_leads_a_session_of_its_own() {
    let child = shell("sleep 60").spawn().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id().pid)).unwrap();
    let session: i32 = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(3).unwrap().parse().unwrap();
    assert_eq!(session, child.id().pid);
}

#[tokio::test]
async fn held_stdin_is_fed_once() {
    let (seen, output) = collector();
    let child = ChildSpec::new("/bin/cat").stdin(Stdin::Held).stdout(output).spawn().unwrap();
    child.feed(b"late\n").await.unwrap();
    assert!(child.feed(b"again\n").await.is_err());
    assert!(child.exited().await.is_success());
    assert_eq!(*seen.lock().unwrap(), ["late"]);
}

#[tokio::test]
async fn the_ladder_tells_which_rung_worked() {
    let polite = shell("sleep 60").spawn().unwrap();
    let term = Rung::Signal(Signal::SIGTERM, Duration::from_secs(10));
    let stopped = polite.shutdown(&[Rung::Wait(Duration::from_millis(1)), term]).await;
    assert_eq!(stopped.rung, term);
    assert_eq!(stopped.exit, Some(Exit { code: None, signal: Some(15) }));

    let (seen, output) = collector();
    let deaf = shell("trap '' TERM; echo ready; while :; do sleep 60; done").stdout(output).spawn().unwrap();
    says(&seen, "ready").await;
    let stopped = deaf.shutdown(&[Rung::Signal(Signal::SIGTERM, Duration::from_millis(30))]).await;
    assert_eq!(stopped.rung, Rung::Kill);
    assert_eq!(stopped.exit, Some(Exit { code: None, signal: Some(9) }));
}

/// A child that has a child of its own, and the names of both.
async fn family() -> (Child, ProcessId) {
    let (seen, output) = collector();
    let child = shell("sleep 60 & echo $!; echo ready; wait").stdout(output).spawn().unwrap();
    says(&seen, "ready").await;
    let pid = seen.lock().unwrap()[0].parse().unwrap();
    (child, ProcessId::of(pid).unwrap())
}

#[tokio::test]
async fn dropping_a_child_kills_its_whole_group() {
    let (child, grandchild) = family().await;
    let id = child.id();
    drop(child);
    id.wait_gone(soon()).await.unwrap();
    grandchild.wait_gone(soon()).await.unwrap();
}

#[tokio::test]
async fn a_released_child_lives_on_and_is_found_by_its_name() {
    let id = shell("sleep 60").spawn().unwrap().release();
    assert!(id.is_alive());
    assert!(id.wait_gone(Deadline::after(Duration::from_millis(5))).await.is_err());
    id.kill_and_wait(soon()).await.unwrap();
    assert!(!id.is_alive());
    assert!(!id.signal(Signal::SIGTERM).unwrap());
}

/// More than a pipe holds, then a file as a sign that it lives on; the first line is heard by whoever started it.
const TALKS: &str = "echo began; until [ -e go ]; do sleep 0.01; done; \
    i=0; while [ $i -lt 3000 ]; do echo 'a line of some forty bytes, again and again'; i=$((i+1)); done 2>/dev/null; \
    echo lives >done; exec sleep 60";

#[tokio::test]
async fn a_child_whose_output_may_be_lost_outlives_its_reader_and_never_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (seen, output) = collector();
    let Output::Lines(sink) = output else { unreachable!("a collector collects lines") };
    let child = shell(TALKS).current_dir(dir.path()).stdout(Output::LossyLines(sink)).spawn().unwrap();
    says(&seen, "began").await;
    let id = child.release();
    std::fs::write(dir.path().join("go"), "").unwrap();
    let done = || std::fs::read_to_string(dir.path().join("done")).is_ok_and(|text| text == "lives\n");
    let ended = eventually(Duration::from_secs(60), async || done() || !id.is_alive()).await;
    assert!(ended, "it waits for a reader");
    assert!(id.is_alive(), "it died of a broken pipe");
    id.kill_and_wait(soon()).await.unwrap();
}

#[tokio::test]
async fn what_may_be_lost_and_is_read_in_time_arrives_before_the_exit() {
    let (seen, output) = collector();
    let Output::Lines(sink) = output else { unreachable!("a collector collects lines") };
    let child = shell("echo one; echo two >&2; exit 3").stdout(Output::LossyLines(Arc::clone(&sink)));
    let child = child.stderr(Output::LossyLines(sink)).spawn().unwrap();
    assert_eq!(child.exited().await, Exit { code: Some(3), signal: None });
    let mut lines = seen.lock().unwrap().clone();
    lines.sort();
    assert_eq!(lines, ["one", "two"]);
}

#[tokio::test]
async fn a_child_of_another_process_is_adopted_watched_and_ended() {
    let adopted = Child::adopt(shell("sleep 60").spawn().unwrap().release());
    assert_eq!(adopted.exit(), None);
    let stopped = adopted.shutdown(&[Rung::Signal(Signal::SIGTERM, Duration::from_secs(10))]).await;
    // The runtime reaps what was released as well: whoever is first learns how it ended.
    let is_known_or_not = |exit: Exit, signal: Signal| exit == Exit::UNKNOWN || exit.signal == Some(signal as i32);
    let exit = adopted.exited().await;
    assert!(is_known_or_not(exit, Signal::SIGTERM) && stopped.exit == Some(exit), "{exit}");
    let id = shell("sleep 60").spawn().unwrap().release();
    drop(Child::adopt(id));
    id.wait_gone(soon()).await.unwrap();
    let exit = Child::adopt(id).exited().await;
    assert!(is_known_or_not(exit, Signal::SIGKILL), "one that has ended already: {exit}");
    while ProcessId::of(id.pid) == Some(id) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn output_is_appended_to_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    for word in ["one", "two"] {
        let child = shell(&format!("echo {word}")).stdout(Output::Append(log.clone())).spawn().unwrap();
        assert!(child.exited().await.is_success());
    }
    assert_eq!(std::fs::read_to_string(log).unwrap(), "one\ntwo\n");
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let error = ChildSpec::new("/nowhere/to/be/found").spawn().unwrap_err();
    assert!(error.to_string().contains("/nowhere/to/be/found"), "{error}");
}

#[tokio::test]
async fn a_child_can_be_another_user_without_groups_and_without_a_way_back() {
    if !nix::unistd::geteuid().is_root() {
        nex_testkit::skip!("a_child_can_be_another_user_without_groups_and_without_a_way_back", "not root");
    }
    let (seen, output) = collector();
    let child = shell("grep -E '^(Uid|Gid|Groups|NoNewPrivs|CapEff):' /proc/self/status").run_as(65534).no_new_privs();
    let child = child.stdout(output).spawn().unwrap();
    assert!(child.exited().await.is_success());
    let lines = seen.lock().unwrap().join("\n");
    for expected in
        ["Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"]
    {
        assert!(lines.contains(expected), "{lines}");
    }
    assert!(lines.lines().any(|line| line.trim_end() == "Groups:"), "{lines}");
    let (seen, output) = collector();
    let child = shell("grep '^Groups:' /proc/self/status").run_as(65534).group(4321).stdout(output).spawn().unwrap();
    assert!(child.exited().await.is_success());
    assert_eq!(seen.lock().unwrap().join("").trim_end(), "Groups:\t4321");
}

#[tokio::test]
async fn a_child_has_the_descriptors_it_is_given_and_no_others() {
    use std::os::fd::AsRawFd;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("given"), "through the descriptor\n").unwrap();
    let open = |name: &str| std::os::fd::OwnedFd::from(std::fs::File::open(dir.path().join(name)).unwrap());
    let (given, kept) = (open("given"), open("given"));
    let script = format!("cat /proc/self/fd/{}; test -e /proc/self/fd/{} && echo leaked", given.as_raw_fd(), kept.as_raw_fd());
    let (seen, output) = collector();
    let child = shell(&script).inherit(given).stdout(output).spawn().unwrap();
    child.exited().await;
    assert_eq!(*seen.lock().unwrap(), ["through the descriptor"]);
    drop(kept);
}

#[tokio::test]
async fn a_child_starts_in_another_network_namespace() {
    let (seen, output) = collector();
    // Another process' namespace serves as the named one; here it is our own, so only the way is tried, not the difference.
    let child = shell("readlink /proc/self/ns/net").netns("/proc/self/ns/net").stdout(output).spawn();
    if !nix::unistd::geteuid().is_root() {
        assert!(child.is_err());
        return;
    }
    assert!(child.unwrap().exited().await.is_success());
    assert_eq!(*seen.lock().unwrap(), [std::fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap()]);
    let error = shell("true").netns("/nowhere").spawn().unwrap_err();
    assert!(error.to_string().contains("/nowhere"), "{error}");
}
