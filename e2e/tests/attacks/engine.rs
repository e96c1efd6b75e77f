//! Whoever takes over an engine by a hole in it, and with it the agent's process.
//!
//! What such a process cannot do is tried in `nex-process/tests/functions.rs`; here is seen that agents are such processes.

use std::fs;

use nex_testkit::guest;

use crate::victim::Victim;

/// A field of a process's or thread's status.
fn field(status: &str, name: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().parse().ok()
}

fn status(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

/// How many filters of system calls each thread of the processes below this one has, and the process above each has.
fn filters_below(pid: u32) -> Vec<(Vec<u32>, u32)> {
    let all: Vec<u32> =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let parent = |pid: u32| field(&status(pid)?, "PPid");
    let is_below = |mut process: u32| loop {
        match parent(process) {
            Some(0) | None => return false,
            Some(above) if above == pid => return true,
            Some(above) => process = above,
        }
    };
    let filters = |status: String| field(&status, "Seccomp_filters");
    let of_threads = |pid: u32| -> Option<(Vec<u32>, u32)> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        let threads = threads.filter_map(|thread| filters(fs::read_to_string(thread.path().join("status")).ok()?)).collect();
        Some((threads, filters(status(parent(pid)?)?)?))
    };
    all.into_iter().filter(|pid| is_below(*pid)).filter_map(of_threads).collect()
}

#[test]
fn an_agent_gives_up_what_functions_do_not_need_before_it_runs_one() {
    let victim = Victim::new();
    let pid = victim.running.as_ref().unwrap().pid();
    let locked_down = || {
        let below = filters_below(pid);
        below.iter().filter(|(threads, above)| *above > 0 && threads.iter().all(|filters| *filters == above + 1)).count()
    };
    assert_eq!(locked_down(), 1, "the agent of the function: {:?}", filters_below(pid));
    let sleeper = victim.world.file("sleeper", "#!/bin/sh\nsleep 600\n");
    victim.world.nex(&["devrun", &sleeper]).expect(0);
    assert_eq!(locked_down(), 1, "not that of the service, which is a process: {:?}", filters_below(pid));
    let module = victim.world.file("echo.wasm", guest::assemble(guest::ECHO_WAT));
    victim.world.nex(&["devrun", &module, "--trigger_subject", "fn.echo"]).expect(0);
    // While it is compiled for later starts, the compiler's process is one more.
    victim.world.eventually("the agent of the second function is locked down", || locked_down() == 2);
    victim.stop();
}
