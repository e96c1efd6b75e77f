//! `nex new`: every template is built, deployed and called as its own README says.

use std::path::Path;
use std::process::Stdio;

use nex_testkit::{dist_binary, skip};
use serde_json::Value;
use tokio::process::Command;

use crate::running::Running;
use crate::triggers::stream;
use crate::world::{PROGRAMS, World, free_port};

/// A node with a listener, in a world where compilers find what they have.
fn world() -> (World, Running, u16) {
    let (mut world, port) = (World::new(), free_port());
    let home = std::env::var("HOME").unwrap_or_default();
    for (name, usual) in
        [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup"), ("GOMODCACHE", "go/pkg/mod"), ("GOCACHE", ".cache/go-build")]
    {
        world.set(name, &std::env::var(name).unwrap_or_else(|_unset| format!("{home}/{usual}")));
    }
    // What is proved is that it works, not that it is fast.
    world.set("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
    world.set("CARGO_PROFILE_RELEASE_LTO", "off");
    // Compilers of the development profile have their time.
    world.file("config.json", r#"{"deploy_timeout_ms": 120000, "workload_types": ["native", "v8", "wasm"]}"#);
    let up = world.up(&["--http", &format!("127.0.0.1:{port}")]);
    (world, up, port)
}

/// Runs a line of a shell where a project is.
fn shell(world: &World, name: &str, line: &str) -> Command {
    let mut command = world.command("sh", &["-euc", line]);
    command.current_dir(world.path(name)).stdin(Stdio::null());
    command
}

/// What is missing to build for WebAssembly, or at all, in a language.
fn missing(world: &World, language: &str) -> Option<&'static str> {
    let works = |line: &str| world.end(world.command("sh", &["-c", line])).code == 0;
    match language {
        "rust" if !works("cargo --version && ls \"$(rustc --print target-libdir --target wasm32-wasip1)\"/libstd-*.rlib") => {
            Some("no Rust for wasm32-wasip1: rustup target add wasm32-wasip1")
        }
        "go" if !works("go version") => Some("no Go"),
        "c" if !works("echo 'int main(void) { return 0; }' | clang --target=wasm32-wasi -o main.wasm -x c -") => {
            Some("no clang with wasi-libc")
        }
        _ => None,
    }
}

/// Writes a project and builds it as it says; the steps that are left.
fn make(world: &World, name: &str, template: &str, language: &str) -> Vec<String> {
    let made = world.nex(&["new", name, "--template", template, "--lang", language, "--json"]).expect(0).json();
    let steps = made["next"].as_array().unwrap().iter().map(|step| step.as_str().unwrap().to_owned());
    let mut steps: Vec<String> = steps.collect();
    assert_eq!(steps.remove(0), format!("cd {name}"));
    let readme = std::fs::read_to_string(world.path(&format!("{name}/README.md"))).unwrap();
    assert!(readme.contains(&steps.join("\n")), "{readme}");
    if language == "rust" {
        // The crates that a service uses are compiled once, not with each run of this test.
        let kept = dist_binary("nex").parent().unwrap().with_file_name("templates");
        std::fs::create_dir_all(&kept).unwrap();
        std::os::unix::fs::symlink(kept, world.path(&format!("{name}/target"))).unwrap();
    }
    while !steps[0].starts_with("n") {
        let step = steps.remove(0);
        world.end(shell(world, name, &step)).expect(0);
    }
    steps
}

/// A template deployed and called; what its steps said in the end.
fn run(world: &World, port: u16, template: &str, language: &str) {
    let name = format!("{template}-{language}");
    let stream_name = name.to_uppercase().replace('-', "_");
    let steps = make(world, &name, template, language);
    let manifest = world.path(&format!("{name}/nex.toml"));
    let text = std::fs::read_to_string(&manifest).unwrap();
    // A test does not wait for a minute, and has a server of its own.
    std::fs::write(&manifest, text.replace("every:1m", "every:1s").replace("nats://127.0.0.1:4222", &world.url())).unwrap();
    let logs = world.start(&["logs", "--workload_name", &name]);
    world.eventually("the tail listens", || logs.err().contains("Watching"));
    for step in steps {
        match step.split_whitespace().next().unwrap() {
            "nats" => {
                assert_eq!(step, format!("nats stream add {stream_name} --subjects '{name}.>' --defaults"));
                stream(world, &stream_name, &format!("{name}.>"));
            }
            "curl" => {
                let answer = world.end(shell(world, &name, &step.replace("8080", &port.to_string()).replace("curl", "curl -s")));
                answer.expect(0).says(&[r#"{"accepted":"ping"}"#]);
            }
            _ if step.contains("--follow") => {
                logs.waits_for("run ");
            }
            _ if step.contains("--watch") => {
                let watch = world.start_command(shell(world, &name, &format!("exec {step}")));
                watch.waits_for("Ctrl-C stops it");
                watch.interrupt().expect(0).says(&["stopped"]);
            }
            _ if step.starts_with("nex call") && template != "consumer" => {
                world.eventually(&step, || world.end(shell(world, &name, &step)).text().contains("Hello, Ada!"));
            }
            _ => drop(world.end(shell(world, &name, &step)).expect(0)),
        }
        if template == "consumer" && step.starts_with("nex call") {
            logs.waits_for("done");
        }
    }
    world.nex(&["ps"]).expect(0);
}

/// Has the tool that makes components of Python, from a directory of its own among the build's; it is fetched once.
fn componentize(world: &World) -> bool {
    let kept = dist_binary("nex").parent().unwrap().with_file_name("templates").join("python");
    let tool = kept.join("bin/componentize-py");
    let kept = kept.display();
    let fetch = format!(
        "test -x {kept}/bin/componentize-py || {{ python3 -m venv {kept} && {kept}/bin/pip install -q componentize-py==0.25.1; }}"
    );
    world.end(world.command("sh", &["-euc", &fetch])).code == 0
        && std::os::unix::fs::symlink(tool, world.path(PROGRAMS).join("componentize-py")).is_ok()
}

fn all_of(test: &str, language: &str, templates: &[&str]) {
    let (world, _up, port) = world();
    if let Some(why) = missing(&world, language) {
        skip!(test, why);
    }
    let listed = world.nex(&["new", "--list", "--json"]).expect(0).json();
    let there: Vec<&Value> = listed.as_array().unwrap().iter().filter(|it| it["lang"] == language).collect();
    let tried: Vec<_> =
        there.iter().filter(|it| it["template"] != "service").map(|it| it["template"].as_str().unwrap()).collect();
    assert_eq!(tried, templates, "all that there are, and no others");
    for template in templates {
        run(&world, port, template, language);
    }
}

#[test]
fn the_templates_in_javascript_run() {
    all_of("the_templates_in_javascript_run", "js", &["function", "webhook", "consumer", "schedule"]);
}

#[test]
fn the_templates_in_typescript_run() {
    all_of("the_templates_in_typescript_run", "ts", &["function", "webhook", "consumer", "schedule"]);
}

#[test]
fn the_templates_in_rust_run() {
    all_of("the_templates_in_rust_run", "rust", &["function", "consumer", "schedule"]);
}

#[test]
fn the_templates_in_go_run() {
    all_of("the_templates_in_go_run", "go", &["function", "consumer", "schedule"]);
}

#[test]
fn the_templates_in_c_run() {
    all_of("the_templates_in_c_run", "c", &["function", "consumer", "schedule"]);
}

#[test]
fn the_templates_in_python_run() {
    const TEST: &str = "the_templates_in_python_run";
    let (world, _up, port) = world();
    if !componentize(&world) {
        skip!(TEST, "no componentize-py: pip install componentize-py");
    }
    run(&world, port, "function", "python");
    for template in ["function", "consumer", "schedule"] {
        let name = format!("test-{template}");
        world.nex(&["new", &name, "--template", template, "--lang", "python"]).expect(0);
        world.end(shell(&world, &name, "python3 -m unittest")).expect(0);
    }
}

#[test]
fn the_service_in_rust_runs() {
    const TEST: &str = "the_service_in_rust_runs";
    let (mut world, _up, port) = world();
    // The crates that this workspace has fetched already will do.
    world.set("CARGO_NET_OFFLINE", "true");
    if world.end(world.command("cargo", &["--version"])).code != 0 {
        skip!(TEST, "no cargo");
    }
    run(&world, port, "service", "rust");
}

#[test]
fn the_service_in_go_runs() {
    const TEST: &str = "the_service_in_go_runs";
    let (world, _up, port) = world();
    if let Some(why) = missing(&world, "go") {
        skip!(TEST, why);
    }
    world.file("probe/go.mod", "module probe\n\ngo 1.22\n");
    if world.end(shell(&world, "probe", "go mod download github.com/nats-io/nats.go@v1.55.0")).code != 0 {
        skip!(TEST, "the module of the NATS client cannot be fetched");
    }
    run(&world, port, "service", "go");
}

#[test]
fn what_is_there_stays_and_what_is_wrong_is_said() {
    let world = World::new();
    world.nex(&["new", "--list"]).expect(0).says(&["function", "js, ts, rust, go, c, python", "webhook", "service"]);
    let made = world.nex(&["new", "greet"]).expect(0);
    made.says(&["Wrote greet: function.mjs", "Next:", "  cd greet\n  nex apply\n  nex call greet @sample.txt\n"]);
    let before = std::fs::read_to_string(world.path("greet/nex.toml")).unwrap();
    world.nex(&["new", "greet", "--lang", "ts"]).expect(2).says(&["greet is there already, and nothing is overwritten"]);
    assert_eq!(std::fs::read_to_string(world.path("greet/nex.toml")).unwrap(), before);
    assert!(!Path::new(&world.path("greet/function.ts")).exists());
    for name in ["../up", "Greet", "a b", "-x", "a/b", ""] {
        world.nex(&["new", "--", name]).expect(2).says(&["cannot be its name"]);
    }
    world.nex(&["new", "hook", "--template", "webhook", "--lang", "c"]).expect(2).says(&["no webhook in c", "js, ts"]);
    world.nex(&["new"]).expect(2);
    assert!(!world.path("hook").exists());
}
