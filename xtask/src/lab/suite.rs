//! `cargo xtask test --lab`: builds the tests that need the lab outside of it, where that is fast, and runs them in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::machine::{Lab, has_firecracker, quote, script};
use crate::shell::{self, cargo};
use crate::skip::skip;
use crate::tally::Tally;
use crate::test::ONCE;
use crate::{dist, machines, tools};

/// A test program, and how it is run.
struct Step {
    package: &'static str,
    program: &'static str,
    /// The sandbox that tests of nodes use; empty if the program ignores it.
    sandbox: &'static str,
    /// Whether it needs Firecracker.
    firecracker: bool,
    args: &'static [&'static str],
}

const fn step(package: &'static str, program: &'static str) -> Step {
    Step { package, program, sandbox: "", firecracker: false, args: &[] }
}

/// The steps, cheap ones first. They run one by one, because there is one processor.
const STEPS: [Step; 8] = [
    step("nex-process", "cgroup"),
    step("nex-sandbox", "jail"),
    step("nex-vmm", "live"),
    step("nex-sandbox", "machine"),
    step("nex-agent", "guest"),
    Step { args: &["clock"], ..step("e2e", "e2e") },
    Step { sandbox: "firecracker", firecracker: true, ..step("nex-node", "node") },
    Step { sandbox: "firecracker", firecracker: true, args: &["microvm"], ..step("e2e", "e2e") },
];

/// Builds the tests and runs them in the lab; names select test programs (`live`, or `nex-vmm/live`); arguments after `--`
/// go to them.
pub(crate) fn test(args: &[String]) -> Result<()> {
    let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let (names, more) = args.split_at(end);
    let more = more.get(1..).unwrap_or_default();
    let is_chosen = |step: &&Step| {
        let whole = format!("{}/{}", step.package, step.program);
        names.is_empty() || names.iter().any(|name| name == step.program || *name == whole)
    };
    let steps: Vec<&Step> = STEPS.iter().filter(is_chosen).collect();
    if steps.is_empty() {
        let all: Vec<_> = STEPS.iter().map(|step| format!("{}/{}", step.package, step.program)).collect();
        bail!("there is no such test program for the lab; next: name one of {}", all.join(", "));
    }
    let lab = match Lab::prepare() {
        Ok(lab) => lab,
        Err(why) => {
            return skip("everything in the lab", format_args!("{why:#}"));
        }
    };
    let nats_server = tools::nats_server()?;
    let dist = dist::dev()?;
    let machines = machines::prepare(&dist, machines::TESTS).context("the guests of the lab need a kernel")?;
    let programs = build(&steps)?;
    let text = |path: &Path| path.display().to_string();
    let environment = [
        ("NEX_NATS_SERVER", text(&nats_server)),
        ("NEX_DIST", text(&dist)),
        ("NEX_TEST_RESOURCES", text(&machines.resources)),
        ("NEX_MIRROR", text(&machines.mirror)),
        ("NEX_KERNEL", text(&machines.resources.join("vmlinux"))),
        ("NEX_LAB", "1".to_owned()),
        ("RUST_BACKTRACE", "0".to_owned()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value));
    let mut commands = String::from("failed=0\n");
    for step in steps {
        let name = format!("{}/{}", step.package, step.program);
        if step.firecracker && !has_firecracker() {
            skip(&name, "there is no firecracker on the PATH, and NEX_FIRECRACKER names none")?;
            continue;
        }
        let (program, dir) = programs.get(&name).with_context(|| format!("cargo built no {name}"))?;
        // A choice of one's own replaces the step's: the test program runs what any of them matches.
        let once = if step.program == "node" { ONCE.iter() } else { [].iter() };
        let own = step.args.iter().copied().chain(once.flat_map(|test| ["--skip", test]));
        let words: Vec<String> = if more.is_empty() { own.map(str::to_owned).collect() } else { more.to_vec() };
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        let sandbox = if step.sandbox.is_empty() { String::new() } else { format!("NEX_TEST_SANDBOX={} ", step.sandbox) };
        let run = format!("{sandbox}{} --test-threads=1 {}", quote(&text(program)), words.join(" "));
        commands += &format!("printf '\\n=== %s\\n' {}; cd {}; {run} || failed=1\n", quote(&name), quote(&text(dir)));
    }
    commands += "exit $failed";
    let mut tally = Tally::default();
    let code = lab.run(&script(&shell::root(), &environment, &commands), |line| tally.read(line))?;
    println!("\nin the lab: {tally}");
    if code != 0 {
        bail!("tests failed in the lab");
    }
    if tally.passed() == 0 { bail!("no test was run in the lab; is the choice of tests right?") } else { Ok(()) }
}

/// Builds the test programs; returns each by its name, with the directory that cargo would run it in.
fn build(steps: &[&Step]) -> Result<BTreeMap<String, (PathBuf, PathBuf)>> {
    // The agent and the init of the sandboxes' tests, which a choice of tests does not bring along.
    shell::run(cargo().args(["build", "--workspace", "--example", "jail-agent", "--example", "hostile-init"]))?;
    let mut command = cargo();
    // With the features of the whole workspace, as everywhere, so that nothing is built twice.
    command.args(["test", "--no-run", "--workspace", "--message-format=json-render-diagnostics"]);
    command.args(steps.iter().flat_map(|step| ["--test", step.program]));
    println!("\n$ {}", shell::line(&command));
    let messages = shell::output(&mut command)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages.filter_map(|message| program(&message)).collect())
}

fn program(message: &Value) -> Option<(String, (PathBuf, PathBuf))> {
    let executable = PathBuf::from(message.get("executable")?.as_str()?);
    let program = message.get("target")?.get("name")?.as_str()?;
    let dir = Path::new(message.get("manifest_path")?.as_str()?).parent()?.to_owned();
    let package = dir.file_name()?.to_str()?.to_owned();
    Some((format!("{package}/{program}"), (executable, dir)))
}
