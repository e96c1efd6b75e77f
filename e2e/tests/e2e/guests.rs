//! What tests of microVMs share: a host of their own, resources, and scripts that say what they find in their guest.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nex_testkit::machines;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::running::Running;
use crate::world::World;

/// Why no microVM can be run by these tests, if none can.
pub(crate) fn obstacle() -> Option<String> {
    let not_root = (!nix::unistd::geteuid().is_root()).then(|| "not root: no network namespaces".to_owned());
    let is_there = |kind: &str| kind != "firecracker" || std::env::var_os("NEX_FIRECRACKER").is_some() || on_path("firecracker");
    let no_monitor = (!is_there(&machines::monitor())).then(|| "no firecracker on the PATH or in NEX_FIRECRACKER".to_owned());
    machines::no_machines().or(not_root).or(no_monitor)
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Runs a test in a network namespace of its own, which plays the host: subnets are free, and whatever is left afterwards is ours.
pub(crate) fn on_a_host(test: impl FnOnce() + Send + 'static) {
    let host = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip", &["link", "set", "lo", "up"]);
        // Whatever this thread starts is born into the namespace.
        test();
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a program of the system and gives what it wrote; it must succeed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// A world with a NATS server whose nodes make microVMs.
pub(crate) fn world() -> World {
    let mut world = World::with_nats();
    world.set("NEX_SANDBOX", &machines::monitor());
    world.set("NEX_RESOURCE_DIR", resources().to_str().unwrap());
    world
}

/// Writes a node's configuration, with time enough for an emulated host to boot its first machine.
pub(crate) fn configure(world: &World, name: &str, mut config: Value) -> String {
    config["boot_timeout_ms"] = 120_000.into();
    world.file(name, config.to_string())
}

/// Where the kernel and the root image of tests lie.
pub(crate) fn resources() -> PathBuf {
    machines::resources().unwrap()
}

/// Everything on this host that a node could have changed.
pub(crate) fn host_state() -> String {
    let devices: Vec<_> =
        run("ip", &["-o", "link"]).lines().filter_map(|line| line.split(": ").nth(1).map(str::to_owned)).collect();
    let (addresses, routes) = (run("ip", &["-o", "-4", "address"]), run("ip", &["-4", "route", "show", "table", "all"]));
    format!("{devices:?}\n{addresses}{routes}{}", run("nft", &["list", "ruleset"]))
}

/// What a named workload has written so far: a line for each thing it says of itself.
#[derive(Debug)]
pub(crate) struct Told(Vec<String>);

impl Told {
    /// Waits until the workload has said that it is done; `logs` is what [`listen`] returned.
    #[track_caller]
    pub(crate) fn wait(world: &World, logs: &Running, name: &str) -> Self {
        let mut told = Self(Vec::new());
        world.eventually(&format!("{name} says that it is done"), || {
            told = Self(lines(logs, name));
            told.0.iter().any(|line| line == "done")
        });
        told
    }

    /// What follows a word at the beginning of a line.
    #[track_caller]
    pub(crate) fn of(&self, what: &str) -> &str {
        let found = self.0.iter().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("nothing of {what} in {self:#?}"))
    }

    /// The lines that begin so.
    pub(crate) fn all(&self, beginning: &str) -> Vec<&str> {
        self.0.iter().map(String::as_str).filter(|line| line.starts_with(beginning)).collect()
    }
}

/// Starts to listen to what workloads write.
pub(crate) fn listen(world: &World) -> Running {
    let logs = world.start(&["logs"]);
    logs.waits_for("Watching the logs");
    logs
}

/// The lines of workloads of a name: `15:04:05 INFO  name/abcd line`.
pub(crate) fn lines(logs: &Running, name: &str) -> Vec<String> {
    let who = format!(" {name}/");
    logs.out().lines().filter_map(|line| Some(line.split_once(&who)?.1.split_once(' ')?.1.to_owned())).collect()
}

/// Deploys a shell script under a name, with arguments for `devrun`; returns the workload's id.
#[track_caller]
pub(crate) fn deploy_script(world: &World, name: &str, script: &str, more: &[&str]) -> String {
    let file = world.file(&format!("{name}.sh"), format!("#!/bin/sh\nb=/bin/busybox\n{script}"));
    world.nex(&[&["devrun", &file, "--name", name], more].concat()).expect(0);
    workload(world, name)["id"].as_str().unwrap().to_owned()
}

/// What `nex ps` says of the one workload of a name.
#[track_caller]
pub(crate) fn workload(world: &World, name: &str) -> Value {
    let found: Vec<_> = world.ps().into_iter().filter(|workload| workload["name"] == name).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// Monitors of the machines of a state directory, each with a directory that is named for its machine: where it runs,
/// `<agents>/<machine>/vm`, or, as its jail hides that, one made up from the machine's id on its command line.
pub(crate) fn monitors(dir: &Path) -> Vec<(i32, PathBuf)> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, place_of(pid, dir)?))).collect()
}

fn place_of(pid: i32, dir: &Path) -> Option<PathBuf> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    if machines::monitor() == "firecracker" && words.first()?.rsplit('/').next()? == "firecracker" {
        let id = words.iter().skip_while(|word| *word != "--id").nth(1)?;
        return Some(dir.join("jailed").join(id.as_ref()));
    }
    std::fs::read_link(format!("/proc/{pid}/cwd")).ok().filter(|cwd| cwd.starts_with(dir) && cwd.ends_with("vm"))
}

/// `kill -9` of the monitor of one machine.
#[track_caller]
pub(crate) fn kill_machine(dir: &Path, machine: &str) {
    let monitors = monitors(dir);
    let found = monitors.iter().find(|(_, cwd)| cwd.components().any(|part| part.as_os_str() == machine));
    let (pid, _) = found.unwrap_or_else(|| panic!("no monitor of {machine} among {monitors:?}"));
    kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
}

/// The machine's id of each warm agent and each workload, as the node's log says it.
pub(crate) fn field<'a>(log: &'a str, line: &str, name: &str) -> Vec<&'a str> {
    let of_line = log.lines().filter(|it| it.contains(line));
    of_line.filter_map(|it| Some(it.split_once(&format!(" {name}="))?.1.split(' ').next()?.trim_matches('"'))).collect()
}

/// A server on some port of an address; whoever reaches it reads a word.
pub(crate) fn server(address: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            drop(std::io::Write::write_all(&mut &stream, b"reached\n"));
        }
    });
    port
}

/// A directory that makes a root image in which shell scripts run.
pub(crate) fn userland(world: &World) -> String {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file()).unwrap();
    let copy = world.file("userland/bin/busybox", std::fs::read(busybox).unwrap());
    std::fs::set_permissions(copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("busybox", world.path("userland/bin/sh")).unwrap();
    world.text_path("userland")
}
