//! Tries to escape as a workload: a program that the agent started under its own uid. Every line it prints is an escape.

#![expect(clippy::needless_pass_by_value, reason = "results are judged where they arise")]

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::process::ExitCode;

use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::personality::{self, Persona};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Gid, Pid, Uid, chroot, getppid, setgid, setgroups, sethostname, setuid};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket};

/// Arguments: a file of the host, a pid of the host, an abstract socket of the host.
pub(crate) fn try_all(arguments: &[&str]) -> ExitCode {
    let [secret, host_pid, socket] = arguments else { return ExitCode::FAILURE };
    let mut tries = Tries(0);
    tries.see_the_host(secret, host_pid.parse().unwrap());
    tries.read_the_agent();
    tries.write_elsewhere();
    tries.change_the_artifact();
    tries.change_identity();
    tries.call_the_kernel();
    tries.reach_sockets(socket);
    tries.must("tell the status", bounds());
    for scratch in ["/work", "/tmp", "/dev/shm"] {
        tries.must(scratch, fs::write(Path::new(scratch).join("f"), "mine"));
    }
    tries.must("/dev/null", fs::write("/dev/null", "mine"));
    ExitCode::from(tries.0)
}

/// What must hold where the root is an image, which may be hostile itself. Arguments: a file of the host, links of the image.
pub(crate) fn try_the_image(arguments: &[&str]) -> ExitCode {
    let [secret, links @ ..] = arguments else { return ExitCode::FAILURE };
    let mut tries = Tries(0);
    for link in links {
        tries.cannot(&format!("read the secret by {link}"), fs::read(format!("{link}{secret}")));
        // Where that works, it is in a root of its own; the host looks.
        let _own_or_nothing = fs::write(format!("{link}/written-by-an-image"), "1");
    }
    for place in ["/etc/passwd", "/etc/resolv.conf", "/.nex/f", "/.nex/old/f", "/.nex/own/f"] {
        tries.cannot(&format!("write {place}"), fs::write(place, "1"));
    }
    // It sees its own copy of what it changes.
    tries.must("read the image", fs::read("/usr/theirs"));
    tries.must("write a file of the image", fs::write("/usr/theirs", "mine"));
    tries.must("remove a file of the image", fs::remove_file("/usr/theirs"));
    tries.must("write beside the image", fs::write("/usr/f", "mine"));
    for device in ["/sda", "/mem"] {
        tries.cannot(&format!("open the device {device}"), fs::File::open(device));
    }
    for hidden in ["/.nex/old/etc", "/.nex/own/etc-passwd", "/usr/bin", "/bin/sh"] {
        tries.cannot(&format!("see {hidden}"), fs::metadata(hidden));
    }
    let own = format!(":{}:", Uid::current());
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    tries.must("find itself among the accounts", if accounts.contains(&own) { Ok(()) } else { Err(accounts) });
    ExitCode::from(tries.0)
}

/// What must hold even where a workload shares the host's directories and processes. Arguments as above.
pub(crate) fn try_the_rest(arguments: &[&str]) -> ExitCode {
    let [secret, host_pid, socket] = arguments else { return ExitCode::FAILURE };
    let mut tries = Tries(0);
    tries.cannot("read the secret", fs::read(secret));
    tries.cannot("write beside the secret", fs::write(format!("{secret}.mine"), "1"));
    tries.cannot("write to /tmp of the host", fs::write(format!("/tmp/{socket}"), "1"));
    tries.cannot("list the home directories", fs::read_dir("/home"));
    tries.cannot("read the node's environment", fs::read(format!("/proc/{host_pid}/environ")));
    tries.cannot("read the node's memory", fs::File::open(format!("/proc/{host_pid}/mem")));
    tries.cannot("signal the node", kill(Pid::from_raw(host_pid.parse().unwrap()), Signal::SIGTERM));
    tries.read_the_agent();
    tries.change_identity();
    tries.call_the_kernel();
    tries.reach_sockets(socket);
    tries.must("tell the status", bounds());
    ExitCode::from(tries.0)
}

struct Tries(u8);

impl Tries {
    fn cannot<T, E>(&mut self, what: &str, result: Result<T, E>) {
        if result.is_ok() {
            println!("could {what}");
            self.0 += 1;
        }
    }

    fn must<T, E: std::fmt::Display>(&mut self, what: &str, result: Result<T, E>) {
        if let Err(error) = result {
            println!("could not {what}: {error}");
            self.0 += 1;
        }
    }

    fn see_the_host(&mut self, secret: &str, host_pid: i32) {
        for root in ["", "/old", "/proc/1/root", "/proc/2/root", "/proc/self/root", "/proc/1/cwd", "/.."] {
            self.cannot(&format!("read the secret by {root:?}"), fs::read(format!("{root}{secret}")));
        }
        for place in ["/srv", "/home", "/var", "/run", "/sys", "/boot", "/etc/shadow", "/dev/kmsg", "/dev/mem", "/dev/kvm"] {
            self.cannot(&format!("see {place}"), fs::metadata(place));
        }
        self.cannot("signal a process of the host", kill(Pid::from_raw(host_pid), None));
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter(|entry| entry.file_name().to_string_lossy().parse::<i32>().is_ok()).count();
        // The init, the agent and this one.
        self.cannot("see other processes", if pids > 3 { Ok(()) } else { Err(()) });
        self.cannot("see the kernel's memory", fs::read("/proc/kcore").and_then(not_empty));
    }

    fn read_the_agent(&mut self) {
        let agent = getppid();
        let init = if agent.as_raw() == 2 { 1 } else { agent.as_raw() };
        for who in [init, agent.as_raw()] {
            for what in ["environ", "maps", "mem", "auxv", "stack", "syscall"] {
                self.cannot(&format!("read {what} of {who}"), fs::read(format!("/proc/{who}/{what}")));
            }
            // As root it owns its files in /proc, but reading them is refused.
            for what in ["fd", "map_files", "task/1/fd"].into_iter().filter(|_| !Uid::current().is_root()) {
                self.cannot(&format!("list {what} of {who}"), fs::read_dir(format!("/proc/{who}/{what}")));
            }
            self.cannot("read a link of the agent", fs::read_link(format!("/proc/{who}/exe")));
        }
        self.cannot("trace the agent", ptrace::attach(agent));
        let mut buffer = [0; 8];
        let remote = RemoteIoVec { base: 0x40_0000, len: 8 };
        let denied = process_vm_readv(agent, &mut [io::IoSliceMut::new(&mut buffer)], &[remote]);
        self.cannot("read the agent's memory", if denied == Err(nix::Error::EPERM) { Err(()) } else { Ok(()) });
        let pidfd = rustix::process::pidfd_open(
            rustix::process::Pid::from_raw(agent.as_raw()).unwrap(),
            rustix::process::PidfdFlags::empty(),
        );
        let flags = rustix::process::PidfdGetfdFlags::empty();
        self.cannot("take a descriptor", pidfd.and_then(|pidfd| rustix::process::pidfd_getfd(pidfd, 1, flags)));
    }

    fn write_elsewhere(&mut self) {
        let places = ["/f", "/usr/f", "/etc/f", "/artifact/f"].into_iter().filter(|_| !is_image());
        for place in places.chain(["/etc/passwd", "/dev/f", "/proc/self/oom_score_adj"]) {
            self.cannot(&format!("write {place}"), fs::write(place, "1"));
        }
        for knob in ["kernel/core_pattern", "kernel/hostname", "vm/overcommit_memory", "net/ipv4/ip_forward"] {
            self.cannot(&format!("turn {knob}"), fs::write(format!("/proc/sys/{knob}"), "1"));
        }
        self.cannot("ask for a reboot", fs::write("/proc/sysrq-trigger", "b"));
        self.cannot("write where a disk of the host is", write_to_a_disk());
    }

    fn change_the_artifact(&mut self) {
        if is_image() {
            return;
        }
        let artifact = Path::new("/artifact/workload");
        self.cannot("chmod the artifact", fs::set_permissions(artifact, fs::Permissions::from_mode(0o777)));
        self.cannot("chown the artifact", chown(artifact, Some(Uid::current().as_raw()), None));
        self.cannot("write the artifact", fs::OpenOptions::new().append(true).open(artifact));
        self.cannot("remove the artifact", fs::remove_file(artifact));
        self.cannot("link the artifact out", fs::hard_link(artifact, Path::new("/work").join("workload")));
        self.cannot("rename the artifact", fs::rename(artifact, "/artifact/other"));
    }

    fn change_identity(&mut self) {
        let (root, group) = (Uid::from_raw(0), Gid::from_raw(0));
        if !Uid::current().is_root() {
            self.cannot("become root", setuid(root));
            self.cannot("become root's group", setgid(group));
        }
        self.cannot("become somebody else", setuid(Uid::from_raw(1)));
        self.cannot("join groups", setgroups(&[group]));
        self.cannot("make a device", mknod("sda", SFlag::S_IFBLK, Mode::S_IRWXU, makedev(8, 0)));
    }

    fn call_the_kernel(&mut self) {
        let none: Option<&str> = None;
        self.cannot("mount", mount(Some("x"), "/tmp", Some("tmpfs"), MsFlags::empty(), none));
        self.cannot("bind", mount(Some("/usr"), "/work", none, MsFlags::MS_BIND, none));
        self.cannot("make /usr writable", mount(none, "/usr", none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none));
        self.cannot("unmount", umount("/proc"));
        self.cannot("change root", chroot("/work"));
        for flag in CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID {
            self.cannot(&format!("unshare {flag:?}"), unshare(flag));
        }
        let own = fs::File::open("/proc/self/ns/mnt");
        self.cannot("join a namespace", own.and_then(|own| Ok(setns(own, CloneFlags::CLONE_NEWNS)?)));
        self.cannot("rename the host", sethostname("mine"));
        self.cannot("be an old program", personality::set(Persona::READ_IMPLIES_EXEC));
        self.must("ask who it is", personality::get());
    }

    fn reach_sockets(&mut self, name: &str) {
        let host = SocketAddr::from_abstract_name(name).unwrap();
        self.cannot("reach an abstract socket of the host", UnixStream::connect_addr(&host));
        for family in [AddressFamily::PACKET, AddressFamily::VSOCK, AddressFamily::CAN] {
            self.cannot("open an odd socket", socket(family, SocketType::RAW, None));
            self.cannot("open an odd socket", socket(family, SocketType::DGRAM, None));
        }
        let pair = rustix::net::socketpair(AddressFamily::INET, SocketType::STREAM, SocketFlags::empty(), None);
        self.cannot("pair odd sockets", if matches!(pair, Err(rustix::io::Errno::PERM)) { Err(()) } else { Ok(()) });
        self.must("open a TCP socket", socket(AddressFamily::INET, SocketType::STREAM, None));
    }
}

/// Whether the root is an image, all of which has memory over it.
fn is_image() -> bool {
    Path::new("/.nex").is_dir()
}

/// Tries to write to every mount that is not memory.
fn write_to_a_disk() -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let memory: &[&str] = if is_image() { &["tmpfs ", "proc ", "overlay "] } else { &["tmpfs ", "proc "] };
    let on_disk = |line: &&str| !line.split(" - ").nth(1).is_some_and(|kind| memory.iter().any(|it| kind.starts_with(it)));
    let places = mounts.lines().filter(on_disk).filter_map(|line| line.split(' ').nth(4));
    for place in places.filter(|place| Path::new(place).is_dir()) {
        if fs::write(Path::new(place).join("f"), "1").is_ok() {
            return Ok(());
        }
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

fn not_empty(bytes: Vec<u8>) -> io::Result<()> {
    if bytes.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Checks the limits that the kernel reports for this process.
fn bounds() -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        if value(set) != "0000000000000000" {
            return Err(format!("{set} {}", value(set)));
        }
    }
    match (value("NoNewPrivs:").as_str(), value("Seccomp:").as_str()) {
        ("1", "2") => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
