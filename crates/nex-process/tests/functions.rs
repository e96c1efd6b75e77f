//! What an engine that was taken over can still do: this test's own program, started again, gives up what functions do not need and then
//! tries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests: what fails here fails the test, and this program is started anew"
)]

use std::fs;
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use nex_process::jail;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::kill;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{Pid, execve};

/// Set in the program that gives up, to a directory of its own.
const TAKEN_OVER: &str = "NEX_TEST_TAKEN_OVER";

#[test]
fn an_engine_that_is_taken_over_starts_no_process_reaches_none_and_listens_to_nobody() {
    if let Some(dir) = std::env::var_os(TAKEN_OVER) {
        return taken_over(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    let name = "an_engine_that_is_taken_over_starts_no_process_reaches_none_and_listens_to_nobody";
    let ran = Command::new(this).args(["--exact", name, "--nocapture"]).env(TAKEN_OVER, dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{}: {said}", ran.status);
    assert!(String::from_utf8_lossy(&ran.stdout).contains("1 passed"), "{said}");
}

fn taken_over(dir: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let file = dir.join("artifact");
    fs::write(&file, b"bytes").unwrap();
    // A thread from before: what is given up holds for it too.
    let (go, wait) = mpsc::channel::<()>();
    let earlier = std::thread::spawn(move || {
        wait.recv().unwrap();
        attacks();
    });
    start_a_process().unwrap();

    jail::restrict_to_functions().unwrap();

    attacks();
    go.send(()).unwrap();
    earlier.join().unwrap();
    std::thread::spawn(attacks).join().unwrap();
    assert_refused(fs::remove_file(&file), "unlink");
    assert_refused(fs::create_dir(dir.join("new")), "mkdir");
    assert_refused(UnixListener::bind(dir.join("socket")), "bind");

    // What functions need works.
    assert_eq!(fs::read(&file).unwrap(), b"bytes");
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_nodelay(true).unwrap();
    connection.write_all(b"hello").unwrap();
}

fn start_a_process() -> io::Result<()> {
    Command::new("/bin/true").status().map(drop)
}

fn assert_refused<T>(done: io::Result<T>, what: &str) {
    assert_eq!(done.err().and_then(|error| error.raw_os_error()), Some(Errno::EPERM as i32), "{what}");
}

/// On each thread.
fn attacks() {
    let refused = |done: Result<(), Errno>, what: &str| assert_eq!(done, Err(Errno::EPERM), "{what}");
    refused(execve(c"/bin/true", &[c"true"], &[c""]).map(drop), "execve");
    refused(kill(Pid::parent(), None), "kill");
    refused(nix::sched::unshare(CloneFlags::CLONE_NEWUSER), "unshare");
    for (family, kind) in [
        (AddressFamily::Unix, SockType::Stream),
        (AddressFamily::Netlink, SockType::Raw),
        (AddressFamily::Packet, SockType::Raw),
        (AddressFamily::Vsock, SockType::Stream),
        (AddressFamily::Inet, SockType::Datagram),
        (AddressFamily::Inet, SockType::Raw),
    ] {
        refused(socket(family, kind, SockFlag::empty(), None).map(drop), "socket");
    }
    assert_refused(start_a_process(), "fork");
    assert_refused(TcpListener::bind("127.0.0.1:0"), "bind");
    assert_refused(UdpSocket::bind("127.0.0.1:0"), "udp");
    assert_refused(UnixStream::pair(), "socketpair");
}
