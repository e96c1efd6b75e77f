//! A service that tells how it was started, a line for each argument and each variable, and stays until it is told to go.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it tells is the test")]

use std::io::Read as _;
use std::os::unix::net::UnixStream;

fn main() {
    for argument in std::env::args().skip(1) {
        println!("argument [{argument}]");
    }
    for (name, value) in std::env::vars() {
        println!("variable {name}=[{value}]");
    }
    eprintln!("this goes to standard error");
    println!("that is all");
    // Nobody writes to the other end: this ends with a signal only.
    let (mut here, _there) = UnixStream::pair().unwrap_or_else(|_no_sockets| std::process::abort());
    drop(here.read(&mut [0]));
}
