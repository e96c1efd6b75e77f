//! `cargo xtask demo`: starts a node, deploys a service and functions, calls them, stops everything and checks that nothing is left; with
//! `--microvm` each workload runs in a virtual machine of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::leftovers::{self, Watch};
use crate::session::Session;
use crate::skip::skip;
use crate::{dist, lab, machines, shell, tools};

/// Log messages of a node about each machine, in order.
const MACHINE_LINES: [&str; 3] = ["Machine started", "Adding new VM to warm pool", "Received agent handshake"];

/// Where the workloads of the session run.
enum Place {
    Processes {
        /// Whether each has a network of its own.
        isolated: bool,
    },
    /// In microVMs of a kind, whose kernel and root image lie in a directory.
    Machines {
        sandbox: &'static str,
        resources: PathBuf,
        /// Whether everything takes many times as long as on a real processor.
        slow: bool,
    },
}

/// The configuration of a node on a slow host, and what is in it.
const SLOW: (&str, &str) = ("slow.json", r#"{"boot_timeout_ms": 120000, "workload_types": ["native", "v8", "wasm"]}"#);

/// Builds everything and runs the session in a temporary directory, which is removed afterwards.
pub(crate) fn run(microvm: bool) -> Result<()> {
    let nats_server = tools::nats_server()?;
    let dist = dist::dev()?;
    let place = if microvm {
        let resources = machines::prepare(&dist, machines::TESTS).context("no microVM can run here")?.resources;
        Place::Machines { sandbox: "qemu", resources, slow: false }
    } else {
        let isolated = machines::has_firewall()?;
        if !isolated {
            println!("there is no nft (Debian: apt-get install nftables): the workloads share this host's network");
        }
        Place::Processes { isolated }
    };
    play_in_place(&nats_server, &dist, &place)
}

/// Builds everything, and runs the session with microVMs in the lab.
pub(crate) fn run_in_lab() -> Result<()> {
    // Read before the build, which may replace the file.
    let program = std::env::current_exe()?;
    let lab = match lab::Lab::prepare() {
        Ok(lab) => lab,
        Err(why) => {
            return skip("the demo in the lab", format_args!("{why:#}"));
        }
    };
    let nats_server = tools::nats_server()?;
    let dist = dist::dev()?;
    let resources = machines::prepare(&dist, machines::TESTS).context("the guests of the lab need a kernel")?.resources;
    let words = [program.as_path(), Path::new("demo"), Path::new("--in-lab"), nats_server.as_path(), &dist, &resources];
    let words = words.map(|word| lab::quote(&word.display().to_string())).join(" ");
    match lab.run(&lab::script(&shell::root(), &[], &format!("exec {words}")), |_line| {})? {
        0 => Ok(()),
        code => bail!("the demo failed in the lab: exit code {code}"),
    }
}

/// The part that runs in the lab, with binaries built outside: the node's guests run in Firecracker, or in QEMU on KVM without it.
pub(crate) fn play_in_lab(nats_server: &Path, dist: &Path, resources: &Path) -> Result<()> {
    let sandbox = if lab::has_firecracker() { "firecracker" } else { "qemu" };
    play_in_place(nats_server, dist, &Place::Machines { sandbox, resources: resources.to_owned(), slow: true })
}

fn play_in_place(nats_server: &Path, dist: &Path, place: &Place) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("nex-demo-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("home"))?;
    let result = play(nats_server, dist, &dir, place);
    let removed = std::fs::remove_dir_all(&dir).with_context(|| format!("{} cannot be removed", dir.display()));
    result.and(removed)?;
    println!("\nThe demo passed, and nothing of it is left.");
    Ok(())
}

fn play(nats_server: &Path, dist: &Path, dir: &Path, place: &Place) -> Result<()> {
    stage(dist, dir)?;
    let port = free_port()?.to_string();
    let url = format!("nats://127.0.0.1:{port}");
    let mut environment = environment(nats_server, dist, dir, &url)?;
    if matches!(place, Place::Machines { slow: true, .. }) {
        environment.push(("NATS_TIMEOUT".to_owned(), "120s".to_owned()));
    }
    let mut session = Session::new(dist.join("nex"), dir.to_owned(), environment);

    let began = Instant::now();
    let node = session.start(&[&["up", "--port", &port, "--state-dir", "state"], place.flags()?.as_slice()].concat())?;
    node.wait_for(&place.start_lines(), Duration::from_secs(120)).context("nex up")?;
    println!("(ready after {} ms)", began.elapsed().as_millis());
    let mut watch = Watch::new(node.pid());
    watch.look();

    let logs = session.start(&["logs"])?;
    deploy(&mut session, &place.nats_url(&port));
    watch.look();
    println!("\n(what nex logs has printed meanwhile)");
    if let Err(error) = logs.wait_for(&["EchoService listens"], Duration::from_secs(30)) {
        session.fail(&format!("nex logs: {error:#}"));
    }
    call(&mut session);
    let node_id = look_around(&mut session, place);
    drop(logs);
    watch.look();

    println!("\n(back to nex up)");
    if let Err(error) = node.interrupt(Duration::from_secs(60)) {
        session.fail(&format!("nex up: {error:#}"));
    }
    println!("\nThe node had started: {}.", watch.names());
    let state = dir.join("state");
    for left in watch.left(&state).into_iter().chain(leftovers::of_guests(&node_id, &state)) {
        session.fail(&format!("left behind: {left}"));
    }
    session.end()
}

/// Writes the files to deploy.
fn stage(dist: &Path, dir: &Path) -> Result<()> {
    let functions = shell::root().join("examples/functions");
    for name in ["echo.js", "greet.mjs", "kv-counter.js"] {
        std::fs::copy(functions.join(name), dir.join(name)).with_context(|| format!("cannot copy {name}"))?;
    }
    let text = std::fs::read_to_string(functions.join("echo.wat"))?;
    std::fs::write(dir.join("echo.wasm"), wat::parse_str(text).context("echo.wat does not assemble")?)?;
    std::fs::write(dir.join(SLOW.0), SLOW.1)?;
    dist::place(&dist.join("echo-service"), &dir.join("echo-service"))
}

impl Place {
    fn flags(&self) -> Result<Vec<&str>> {
        let (sandbox, resources, slow) = match self {
            Self::Processes { isolated: true } => return Ok(Vec::new()),
            Self::Processes { isolated: false } => return Ok(vec!["--waive", "network"]),
            Self::Machines { sandbox, resources, slow } => (sandbox, resources, slow),
        };
        let resources = resources.to_str().context("the path of the resources is not text")?;
        let config: &[&str] = if *slow { &["--config", SLOW.0] } else { &[] };
        Ok([&["--sandbox", sandbox, "--resource-dir", resources], config].concat())
    }

    /// Output of the node before it is ready.
    fn start_lines(&self) -> Vec<&str> {
        match self {
            Self::Processes { .. } => vec!["Ctrl-C stops"],
            Self::Machines { .. } => [&MACHINE_LINES[..], &["Ctrl-C stops"]].concat(),
        }
    }

    /// The URL of the user's NATS for a workload: a guest reaches it at its gateway, by name.
    fn nats_url(&self, port: &str) -> String {
        let host = match self {
            Self::Processes { .. } => "127.0.0.1",
            Self::Machines { .. } => "host.nex.internal",
        };
        format!("NATS_URL=nats://{host}:{port}")
    }

    /// The node's tags about its sandboxes.
    fn tag(&self) -> String {
        match self {
            Self::Processes { .. } => "nex.sandbox=process".to_owned(),
            Self::Machines { sandbox, .. } => format!("nex.sandbox={sandbox}"),
        }
    }
}

fn deploy(session: &mut Session, nats_url: &str) {
    session.run_expecting(&["devrun", "echo-service", nats_url], "accepted");
    session.run_expecting(&["devrun", "echo.wasm", "--trigger_subject", "fn.wasm"], "accepted");
    session.run_expecting(&["devrun", "echo.js", "--trigger_subject", "fn.js"], "accepted");
    session.run_expecting(&["devrun", "greet.mjs", "--trigger_subject", "fn.greet"], "accepted");
    session.run_expecting(&["devrun", "kv-counter.js", "--trigger_subject", "fn.count"], "accepted");
}

fn call(session: &mut Session) {
    session.run_expecting(&["call", "svc.echo", "hello"], "hello");
    session.run_expecting(&["call", "fn.wasm", "hello"], "hello");
    session.run_expecting(&["call", "fn.js", "hello"], r#"{"triggered_on":"fn.js","payload":"hello"}"#);
    session.run_expecting(&["call", "fn.greet", "world"], "Hello, world!");
    session.run_expecting(&["call", "fn.count", ""], r#"{"count":1}"#);
    session.run_expecting(&["call", "fn.count", ""], r#"{"count":2}"#);
}

/// The tables, and a stop by hand. Returns the node's id.
fn look_around(session: &mut Session, place: &Place) -> String {
    let nodes = session.run(&["node", "ls"]);
    let workloads = session.run_expecting(&["ps"], "echo-service");
    let is_key = |word: &&str| word.len() == 56 && word.starts_with('N');
    let words = nodes.split(|c: char| !c.is_ascii_alphanumeric());
    let Some(node) = words.clone().find(is_key).map(str::to_owned) else {
        session.fail("nex node ls shows no node");
        return String::new();
    };
    session.run_expecting(&["node", "info", &node], &place.tag());
    let line = workloads.lines().find(|line| line.contains("echo-service")).unwrap_or_default();
    let is_id = |word: &&str| word.len() == 20 && word.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    let Some(workload) = line.split(|c: char| !c.is_ascii_alphanumeric()).find(is_id).map(str::to_owned) else {
        session.fail("nex ps shows no workload id");
        return node;
    };
    session.run(&["stop", &node, &workload, "--name", "echo-service", "--issuer", "home/.nex/issuer.nk"]);
    node
}

/// The environment of the session's commands: nothing of the user's own configuration.
fn environment(nats_server: &Path, dist: &Path, dir: &Path, url: &str) -> Result<Vec<(String, String)>> {
    let mut path = vec![dist.to_owned()];
    path.extend(nats_server.parent().map(PathBuf::from));
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let path = std::env::join_paths(path)?.to_string_lossy().into_owned();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let set = [
        ("PATH", path),
        ("HOME", text(&dir.join("home"))),
        ("NATS_URL", url.to_owned()),
        ("NEX_NATS_SERVER", text(nats_server)),
        ("LANG", "C.UTF-8".to_owned()),
    ];
    Ok(set.map(|(key, value)| (key.to_owned(), value)).to_vec())
}

/// A free port.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
