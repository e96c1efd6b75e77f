//! The project's tool: `cargo xtask <command>`. Builds with Rust alone; reports what else it needs and installs it if possible.
#![expect(clippy::print_stdout, reason = "a tool for the terminal talks to it")]
#![expect(clippy::disallowed_methods, reason = "it runs other programs one after the other, and each is waited for")]

mod bench;
mod check;
mod demo;
mod dist;
mod elf;
mod lab;
mod leftovers;
mod machines;
mod package;
mod session;
mod shell;
mod skip;
mod tally;
mod test;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  demo [--microvm]  build nex, run a node in a temporary place, deploy to it, call, stop, check that nothing is left;
                    with --microvm every workload is in a virtual machine of its own (QEMU, emulated), with --microvm --lab
                    in one of Firecracker's, in the lab
  test [args]       get nats-server, build, run all tests; args go to `cargo test`
  test --lab [NAME] [-- args]
                    run the tests of microVMs and jails in the lab, or only the test programs of these names
  lab [COMMAND]     boot Debian's kernel in an emulated machine with a working /dev/kvm and cgroup v2, run a command (or a
                    shell) as root in it, over this machine's files; what it writes is lost, but for /run/lab/out
  check             formatting, clippy and rustdoc, warnings as errors
  bench [args]      measure calls, deploys, starts and memory; --quick is shorter, --json FILE writes the numbers, too;
                    --microvm measures microVMs instead, --sandbox qemu|firecracker says which
  soak [args]       deploy and stop 10,000 times, kill a node with 200 workloads, then everything at random under load for ten
                    minutes; fails where something is lost, left or twice; --cycles N, --adopt N, --chaos SECONDS and --seed N
                    do a part
  dist [--dev]      build nex and nex-agent into target/dist: for release, or in the development profile
  package [--dev]   the same as a Debian package, with a systemd unit and completions, and as an archive, in target/package";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", args.as_slice()),
    };
    let result = match (command, rest) {
        ("demo", []) => demo::run(false),
        ("demo", [flag]) if flag == "--microvm" => demo::run(true),
        ("demo", [flag, lab]) if flag == "--microvm" && lab == "--lab" => demo::run_in_lab(),
        // Run by the command above, inside the lab.
        ("demo", [flag, nats_server, dist, resources]) if flag == "--in-lab" => {
            demo::play_in_lab(nats_server.as_ref(), dist.as_ref(), resources.as_ref())
        }
        ("test", [flag, rest @ ..]) if flag == "--lab" => lab::test(rest),
        ("test", rest) => test::run(rest),
        ("lab", rest) => match lab::run(rest) {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error),
        },
        ("check", []) => check::run(),
        ("bench", rest) => bench::run(rest),
        ("soak", rest) => bench::soak(rest),
        ("dist", []) => dist::release().map(|_dir| ()),
        ("dist", [flag]) if flag == "--release" => dist::release().map(|_dir| ()),
        ("dist", [flag]) if flag == "--dev" => dist::dev().map(|_dir| ()),
        ("package", []) => package::run(false),
        ("package", [flag]) if flag == "--dev" => package::run(true),
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
