//! The project's own tool: `cargo xtask <command>`. Needs nothing but Rust to build; says what else it needs, and gets it
//! where it can.
#![expect(clippy::print_stdout, reason = "a tool for the terminal talks to it")]
#![expect(clippy::disallowed_methods, reason = "it runs other programs one after the other, and each is waited for")]

mod bench;
mod check;
mod demo;
mod dist;
mod elf;
mod leftovers;
mod machines;
mod session;
mod shell;
mod test;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  demo [--microvm]  build nex, run a node in a temporary place, deploy to it, call, stop, check that nothing is left;
                    with --microvm every workload is in a virtual machine of its own (QEMU, emulated)
  test [args]       get nats-server, build, run all tests; args go to `cargo test`
  check             formatting, clippy and rustdoc, warnings as errors
  bench [args]      measure calls, deploys, starts and memory; --quick is shorter, --json FILE writes the numbers, too;
                    --microvm measures microVMs instead, --sandbox qemu|firecracker says which
  dist [--dev]      build nex and nex-agent into target/dist: for release, or in the development profile";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", args.as_slice()),
    };
    let result = match (command, rest) {
        ("demo", []) => demo::run(false),
        ("demo", [flag]) if flag == "--microvm" => demo::run(true),
        ("test", rest) => test::run(rest),
        ("check", []) => check::run(),
        ("bench", rest) => bench::run(rest),
        ("dist", []) => dist::release(),
        ("dist", [flag]) if flag == "--release" => dist::release(),
        ("dist", [flag]) if flag == "--dev" => dist::dev().map(|_dir| ()),
        _ => Err(anyhow::anyhow!("{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
