//! Fixture: one user's home, state directory, port and environment, in which commands run as typed.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nex_testkit::{NatsOptions, NatsServer, dist_binary, nats_server_binary};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::runtime::Runtime;

pub(crate) use crate::ended::Ended;
use crate::ended::TIMEOUT;
use crate::running::Running;

/// Where a world has the programs.
pub(crate) const PROGRAMS: &str = "programs";

/// A user with an empty home. Dropped last, it kills what a failed test left running.
pub(crate) struct World {
    // Fields are dropped in this order: processes end before their directory and the runtime are gone.
    nats: Option<NatsServer>,
    environment: BTreeMap<String, String>,
    /// User that commands run as, if not the current one.
    uid: Option<u32>,
    port: u16,
    dir: TempDir,
    runtime: Runtime,
}

impl World {
    /// A world with a free port and no NATS server on it.
    pub(crate) fn new() -> Self {
        let dir = TempDir::with_prefix("nex-e2e-").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut world = Self { nats: None, environment: BTreeMap::new(), uid: None, port: free_port(), dir, runtime };
        std::fs::create_dir(world.path("home")).unwrap();
        world.link_programs();
        let server = nats_server_binary();
        let mut path = vec![world.path(PROGRAMS), server.parent().unwrap().to_owned()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        world.set("PATH", std::env::join_paths(path).unwrap().to_str().unwrap());
        world.set("NEX_NATS_SERVER", server.to_str().unwrap());
        world.set("HOME", &world.text_path("home"));
        world.set("XDG_CONFIG_HOME", &world.text_path("home/config"));
        world.set("NEX_STATE_DIR", &world.text_path("state"));
        world.set("LANG", "C.UTF-8");
        let url = format!("nats://127.0.0.1:{}", world.port);
        world.set("NATS_URL", &url);
        world
    }

    /// Gives this world paths of its own to the programs, so that what they start is told from what those of other worlds start.
    fn link_programs(&self) {
        std::fs::create_dir(self.path(PROGRAMS)).unwrap();
        for program in ["nex", "nex-agent"] {
            let (from, to) = (dist_binary(program), self.path(PROGRAMS).join(program));
            // Another file system takes no links.
            std::fs::hard_link(&from, &to).or_else(|_no_link| std::fs::copy(&from, &to).map(drop)).unwrap();
        }
    }

    /// A world with a NATS server that is not `nex up`'s.
    pub(crate) fn with_nats() -> Self {
        Self::with_nats_like(NatsOptions::default())
    }

    /// The same, with other options of the server.
    pub(crate) fn with_nats_like(options: NatsOptions) -> Self {
        let mut world = Self::new();
        let nats = world.runtime.block_on(NatsServer::start_with(options));
        world.port = nats.port();
        world.set("NATS_URL", &nats.url());
        world.nats = Some(nats);
        world
    }

    /// Sets a variable for all later commands.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Removes a variable.
    pub(crate) fn unset(&mut self, name: &str) {
        self.environment.remove(name);
    }

    /// Lets all later commands run as another user, to whom this world's directory then belongs.
    pub(crate) fn run_as(&mut self, uid: u32) {
        for path in [self.dir.path().to_owned(), self.path("home")] {
            std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
        }
        self.uid = Some(uid);
    }

    /// URL of NATS, whether it runs or not.
    pub(crate) fn url(&self) -> String {
        self.environment["NATS_URL"].clone()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A path in this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text_path(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file; returns its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs `nex` to its end, with nothing on its standard input.
    pub(crate) fn nex(&self, args: &[&str]) -> Ended {
        self.end(self.command("nex", args))
    }

    /// Runs `nex` to its end, if it can be run at all.
    pub(crate) fn try_nex(&self, args: &[&str]) -> std::io::Result<Ended> {
        let mut command = self.command("nex", args);
        self.runtime.block_on(async { Ok(Ended::of(args, command.spawn()?.wait_with_output()).await) })
    }

    /// Runs `nex` to its end with this on its standard input.
    pub(crate) fn nex_reading(&self, args: &[&str], input: &[u8]) -> Ended {
        let mut command = self.command("nex", args);
        self.runtime.block_on(async {
            let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let feed = async move {
                // A command that does not read ends before it is fed; what it says is what counts.
                drop(stdin.write_all(input).await);
            };
            tokio::join!(Ended::of(args, child.wait_with_output()), feed).0
        })
    }

    /// Runs any command to its end.
    pub(crate) fn end(&self, mut command: Command) -> Ended {
        let shown = format!("{:?}", command.as_std());
        self.runtime.block_on(async { Ended::of(&[&shown], command.spawn().unwrap().wait_with_output()).await })
    }

    /// Starts `nex` and leaves it running.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        self.start_command(self.command("nex", args))
    }

    /// Starts any command and leaves it running.
    pub(crate) fn start_command(&self, command: Command) -> Running {
        Running::start(command, self.runtime.handle())
    }

    /// Starts `nex up` on this world's port; returns when it is ready.
    pub(crate) fn up(&self, more: &[&str]) -> Running {
        let port = self.port.to_string();
        let up = self.start(&[&["up", "--port", &port], more].concat());
        up.waits_for("Ctrl-C stops everything");
        up
    }

    /// Starts `nex node up` on this world's NATS; returns when it is ready.
    pub(crate) fn node_up(&self, more: &[&str]) -> Running {
        let node = self.start(&[&["node", "up"], more].concat());
        node.waits_for("is ready");
        node
    }

    /// The same by a copy of the programs in another directory, as one that was installed there.
    pub(crate) fn node_up_in(&self, dir: &str, more: &[&str]) -> Running {
        let dir = self.path(dir);
        std::fs::create_dir_all(&dir).unwrap();
        for program in ["nex", "nex-agent"] {
            std::fs::copy(dist_binary(program), dir.join(program)).unwrap();
        }
        let args = [&["node", "up"], more].concat();
        let node = self.start_command(self.command(dir.join("nex").to_str().unwrap(), &args));
        node.waits_for("is ready");
        node
    }

    /// A command of this world: nothing of the real user's configuration reaches it.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let program = if program == "nex" { self.path(PROGRAMS).join("nex") } else { PathBuf::from(program) };
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(&self.environment).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Runs what needs the NATS client.
    pub(crate) fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(async { tokio::time::timeout(TIMEOUT, work).await.expect("it takes too long") })
    }

    /// A client of this world's NATS, with the credentials that `nex up` wrote down if that is whose server it is.
    pub(crate) fn client(&self) -> async_nats::Client {
        let context = std::fs::read(self.context_file()).unwrap_or_default();
        let Ok(context) = serde_json::from_slice::<Value>(&context) else { return self.stranger() };
        let seed = std::fs::read_to_string(context["nkey"].as_str().unwrap()).unwrap();
        let options = async_nats::ConnectOptions::with_nkey(seed).custom_inbox_prefix(context["inbox_prefix"].as_str().unwrap());
        self.block_on(options.connect(self.url())).unwrap()
    }

    /// A client without credentials.
    pub(crate) fn stranger(&self) -> async_nats::Client {
        self.block_on(async_nats::connect(self.url())).unwrap()
    }

    /// The NATS context that `nex up` writes.
    pub(crate) fn context_file(&self) -> PathBuf {
        self.path(&format!("home/config/nats/context/nex-{}.json", self.port))
    }

    /// Waits until a condition holds.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + TIMEOUT;
        while !condition() {
            assert!(Instant::now() < end, "{what}: not within {TIMEOUT:?}");
            self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(10)).await });
        }
    }

    /// Waits until a call is answered: a service that runs is not yet one that listens.
    #[track_caller]
    pub(crate) fn eventually_answers(&self, subject: &str) {
        self.eventually(subject, || self.nex(&["call", subject, "x", "--timeout", "1s"]).code == 0);
    }

    /// The workloads of the namespace, as `nex ps --json` tells them.
    pub(crate) fn ps(&self) -> Vec<Value> {
        self.nex(&["ps", "--json"]).expect(0).json().as_array().unwrap().clone()
    }

    /// Where the newest file of a workload lies.
    pub(crate) fn artifact(&self, name: &str) -> String {
        let listed = self.nex(&["artifact", "ls", name, "--json"]).expect(0).json();
        listed[0]["url"].as_str().unwrap().to_owned()
    }

    /// The nodes, as `nex node ls --json` tells them.
    pub(crate) fn nodes(&self) -> Vec<Value> {
        self.nex(&["node", "ls", "--json"]).expect(0).json().as_array().unwrap().clone()
    }

    /// The id of the only node.
    pub(crate) fn node_id(&self) -> String {
        let nodes = self.nodes();
        assert_eq!(nodes.len(), 1, "{nodes:?}");
        nodes[0]["node_id"].as_str().unwrap().to_owned()
    }

    /// Processes whose command line names this world's directory.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        // A command that was typed names its program, which says nothing of what it left.
        let nex = self.path(PROGRAMS).join("nex ");
        let mut found = processes_naming(self.dir.path());
        found.retain(|(_, line)| {
            line.strip_prefix(nex.to_str().unwrap()).is_none_or(|rest| rest.contains(self.dir.path().to_str().unwrap()))
        });
        found
    }

    /// The outermost processes of its agents.
    pub(crate) fn agents(&self) -> Vec<i32> {
        let agent = self.path(PROGRAMS).join("nex-agent");
        self.processes().into_iter().filter(|(_, line)| line.starts_with(agent.to_str().unwrap())).map(|(pid, _)| pid).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.nats = None;
        for (pid, _) in self.processes() {
            // Processes of a failed test; agents end with their node or bus.
            let _gone_already = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Ports below those the kernel gives to clients, so that no client takes one before its server starts.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 15_000 + u16::try_from(std::process::id() % 150).unwrap() * 100;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Pid and command line of each process whose command line names a path.
fn processes_naming(path: &Path) -> Vec<(i32, String)> {
    let path = path.to_str().unwrap();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let line = |pid| {
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&bytes).replace('\0', " ")))
    };
    pids.filter_map(line).filter(|(_, line)| line.contains(path)).collect()
}
