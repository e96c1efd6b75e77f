//! The init of a hostile guest: it does to its node what the file `/manner` in its image says. Not part of the product.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test program, the only one in its machine"
)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use nex_protocol::guest::{FromGuest, VSOCK_PORT};
use nix::libc::VMADDR_CID_HOST;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};

/// Connections that one guest opens.
const CONNECTIONS: usize = 2_000;

fn main() {
    let manner = fs::read_to_string("/manner").unwrap();
    println!("this guest {manner}");
    match manner.as_str() {
        // The kernel panics without its init.
        "panics" => return,
        "hangs" => hang(),
        _ => {}
    }
    let mut channel = channel();
    match manner.as_str() {
        "says nothing" => hang(),
        "floods before it is ready" => flood(&mut channel, &[b'x'; 4096]),
        "is ready again and again" => flood(&mut channel, &line(&ready())),
        _ => {}
    }
    channel.write_all(&line(&ready())).unwrap();
    let mut asked = String::new();
    BufReader::new(&channel).read_line(&mut asked).unwrap();
    channel.write_all(&line(&FromGuest::Identified)).unwrap();
    match manner.as_str() {
        "panics later" => {}
        "fills its memory" => fill(),
        "floods later" => flood(&mut channel, &[b'x'; 4096]),
        "opens channel after channel" => {
            let _open: Vec<_> = (0..CONNECTIONS).map(|_| vsock()).collect();
            hang();
        }
        other => println!("no guest {other}"),
    }
}

fn hang() {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// Nobody is left to be killed for it but the init, so the kernel panics.
fn fill() {
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; 1 << 20]);
    }
}

fn flood(channel: &mut File, what: &[u8]) {
    loop {
        if channel.write_all(what).is_err() {
            hang();
        }
    }
}

fn ready() -> FromGuest {
    FromGuest::Ready { version: env!("CARGO_PKG_VERSION").to_owned() }
}

fn line(message: &FromGuest) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap();
    line.push(b'\n');
    line
}

/// The port that is no console, or a vsock connection. The kernel has mounted its devices.
fn channel() -> File {
    loop {
        let devices = fs::read_dir("/dev").unwrap().flatten().map(|device| device.path());
        let mut ports = devices.filter(|path| path.to_str().is_some_and(|path| path.starts_with("/dev/vport")));
        let port = ports.find_map(|path| File::options().read(true).write(true).open(path).ok());
        if let Some(channel) = port.or_else(vsock) {
            return channel;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn vsock() -> Option<File> {
    let socket: OwnedFd = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None).ok()?;
    connect(socket.as_raw_fd(), &VsockAddr::new(VMADDR_CID_HOST, VSOCK_PORT)).ok()?;
    Some(socket.into())
}
