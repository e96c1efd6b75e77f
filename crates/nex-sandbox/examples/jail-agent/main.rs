//! The agent of the jail tests: enters a jail like an agent, then runs the command in its identity. Not part of the product.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::mem_forget,
    reason = "a test program, whose failure to do something is the result that is looked for"
)]

mod escape;

use std::fs;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nex_process::jail::{self, Entered};
use nix::sys::signal::{SigSet, Signal};
use nix::time::{ClockId, clock_gettime};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--probe", uid] => return jail::probe_main(uid.parse().unwrap()),
        ["--whoami"] => println!("{}", nix::unistd::geteuid()),
        ["--escape", rest @ ..] => return escape::try_all(rest),
        ["--escape-image", rest @ ..] => return escape::try_the_image(rest),
        ["--reach", rest @ ..] => return escape::try_the_rest(rest),
        ["--kill-all"] => drop(nix::sys::signal::kill(nix::unistd::Pid::from_raw(-1), Signal::SIGKILL)),
        ["--sleep"] => sleep(),
        _ => match jail::enter(std::io::stdin()) {
            Ok(entered) => return act(&entered),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        },
    }
    ExitCode::SUCCESS
}

fn act(entered: &Entered) -> ExitCode {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    report("entered", &format!("{} {}", now.tv_sec(), now.tv_nsec()));
    report("report", &serde_json::to_string(&entered.report).unwrap());
    let identity = String::from_utf8(entered.identity.clone()).unwrap();
    let words: Vec<&str> = identity.split(' ').collect();
    match words.as_slice() {
        ["stay"] => sleep(),
        ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap()),
        ["fail", line] => {
            eprintln!("{line}");
            return ExitCode::FAILURE;
        }
        // A workload: another program under the same uid.
        ["run", rest @ ..] => {
            let program = workload(entered);
            let mut command = Command::new(program);
            command.args(rest).env_clear();
            let output = retried(|| command.output());
            report("said", &String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
            sleep();
        }
        ["family"] => family(entered),
        ["bomb"] => bomb(),
        ["eat"] => eat(),
        ["fill"] => fill(entered),
        ["connect", addresses @ ..] => connect(addresses),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

/// Reports a value on standard output, which the node logs: in hexadecimal, in lines short enough not to be cut.
fn report(name: &str, text: &str) {
    let digits: Vec<u8> = text.bytes().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect();
    for piece in digits.chunks(400) {
        println!("@{name} {}", String::from_utf8_lossy(piece));
    }
    println!("@{name} .");
    io::stdout().flush().unwrap();
}

fn sleep() {
    let _interrupted = SigSet::empty().suspend();
}

/// The node attaches it after the agent has started, without a message in these tests.
fn workload(entered: &Entered) -> PathBuf {
    let program = entered.layout.artifact.join("workload");
    while !program.exists() {
        std::thread::yield_now();
    }
    program
}

/// A program that was just written is busy while a fork of its writer still has it open before its exec.
fn retried<T>(mut start: impl FnMut() -> io::Result<T>) -> T {
    loop {
        match start() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            result => return result.unwrap(),
        }
    }
}

/// Leaves descendants behind: in the same session, in a session of their own, orphaned.
fn family(entered: &Entered) {
    let program = workload(entered);
    for _ in 0..3 {
        let mut command = Command::new(&program);
        std::mem::forget(retried(|| command.arg("--sleep").spawn()));
        std::mem::forget(command.process_group(0).stdout(Stdio::null()).spawn().unwrap());
    }
    let orphan = format!("setsid {0} --sleep & {0} --sleep &", program.display());
    Command::new("/bin/sh").args(["-c", &orphan]).status().unwrap();
    report("ready", "");
    sleep();
}

/// Starts processes without end; reports how many there were when fork failed.
fn bomb() {
    let mut children = Vec::new();
    while let Ok(child) = Command::new("/bin/sleep").arg("1000").spawn() {
        children.push(child);
        assert!(children.len() < 100, "nothing stops a fork bomb");
    }
    report("bombed", &children.len().to_string());
    sleep();
}

fn eat() {
    let mut eaten = Vec::new();
    for _ in 0..4096 {
        eaten.push(vec![1_u8; 1 << 20]);
    }
    println!("{}", eaten.len());
}

/// Fills every scratch directory; reports how many bytes each took.
fn fill(entered: &Entered) {
    let mut said = String::new();
    for place in [entered.layout.work.as_path(), Path::new("/tmp"), Path::new("/dev/shm")] {
        let mut file = fs::File::create(place.join("fill")).unwrap();
        let mut written = 0_u64;
        while let Ok(bytes) = file.write(&[1; 4096]) {
            written += bytes as u64;
            assert!(written < 1 << 30, "nothing stops a full disk");
        }
        said.push_str(&format!("{written} "));
        fs::remove_file(place.join("fill")).unwrap();
    }
    report("filled", said.trim());
    sleep();
}

fn connect(addresses: &[&str]) {
    let reached = |address: &&str| {
        let timeout = Duration::from_millis(500);
        TcpStream::connect_timeout(&address.parse().unwrap(), timeout).map_or("no", |_connected| "yes")
    };
    report("connected", &addresses.iter().map(reached).collect::<Vec<_>>().join(" "));
    sleep();
}
