//! A real nats-server, one per test: on a free port of the loopback, in its own directory, gone with its value.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{eventually, nats_server_binary};

/// Longest time a server may take to come up or to go down; it takes some 20 ms.
const PATIENCE: Duration = Duration::from_secs(15);

/// How a test's nats-server differs from a plain one with JetStream.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Whether it has JetStream, in a directory of its own.
    pub jetstream: bool,
    /// More configuration in nats-server's own syntax: users, accounts, limits. No listen address.
    pub config: String,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self { jetstream: true, config: String::new() }
    }
}

/// A running nats-server. Dropping it kills the server, waits for its end and removes its files.
#[derive(Debug)]
pub struct NatsServer {
    options: NatsOptions,
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl NatsServer {
    /// Starts a server with JetStream and without authentication; returns when it accepts clients.
    ///
    /// # Panics
    /// When there is no nats-server, or it does not come up.
    pub async fn start() -> Self {
        Self::start_with(NatsOptions::default()).await
    }

    /// Starts a server as the options say; returns when it accepts clients.
    ///
    /// # Panics
    /// When there is no nats-server, or it does not come up.
    #[expect(clippy::expect_used, reason = "no directory, no test")]
    pub async fn start_with(options: NatsOptions) -> Self {
        let dir = TempDir::with_prefix("nex-nats-").expect("a temporary directory can be made");
        let mut server = Self { options, dir, port: 0, child: None };
        server.launch().await;
        server
    }

    /// Where clients connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port it listens on; a restarted server has the same.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id of the server, while there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// A client of this server, for one that asks for no credentials.
    ///
    /// # Panics
    /// When the server refuses.
    #[expect(clippy::expect_used, reason = "no connection, no test")]
    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.expect("the server of this test accepts a client")
    }

    /// Ends the server the hard way, as a crash would; [`Self::restart`] brings it back.
    pub fn kill9(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(&child, Signal::SIGKILL);
        // It is dead or dying: this wait is short, and it leaves no zombie.
        drop(child.wait());
    }

    /// Stops the server if it runs and starts it again: same port, same store.
    ///
    /// # Panics
    /// When it does not come up again.
    pub async fn restart(&mut self) {
        if let Some(child) = self.child.as_mut() {
            signal(child, Signal::SIGTERM);
            let ended = eventually(PATIENCE, || std::future::ready(!matches!(child.try_wait(), Ok(None)))).await;
            assert!(ended, "nats-server did not end within {PATIENCE:?} of SIGTERM");
            self.child = None;
        }
        self.launch().await;
    }

    #[expect(clippy::panic, reason = "a test without its server has failed")]
    async fn launch(&mut self) {
        let child = self.command().spawn().unwrap_or_else(|error| panic!("nats-server does not start: {error}"));
        let ports_file = self.ports_dir().join(format!("nats-server_{}.ports", child.id()));
        let child = self.child.insert(child);
        let mut found = None;
        let up = eventually(PATIENCE, || {
            let dead = !matches!(child.try_wait(), Ok(None));
            found = read_port(&ports_file).filter(|port| greets(*port));
            std::future::ready(dead || found.is_some())
        });
        match (up.await, found) {
            (true, Some(port)) => self.port = port,
            _ => panic!("nats-server did not come up; its log says:\n{}", self.log()),
        }
    }

    #[expect(
        clippy::expect_used,
        clippy::disallowed_methods,
        reason = "the one owner of the server's process; no files, no test"
    )]
    fn command(&self) -> Command {
        let root = self.dir.path();
        std::fs::create_dir_all(self.ports_dir()).expect("the test's directory is writable");
        let store =
            if self.options.jetstream { format!("jetstream {{ store_dir: {:?} }}\n", root.join("js")) } else { String::new() };
        let config = root.join("nats.conf");
        std::fs::write(&config, store + &self.options.config).expect("the test's directory is writable");
        let log =
            std::fs::File::options().create(true).append(true).open(self.log_file()).expect("the test's directory is writable");
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };

        let mut command = Command::new(nats_server_binary());
        command.arg("--config").arg(config).arg("--ports_file_dir").arg(self.ports_dir());
        command.args(["--addr", "127.0.0.1", "--port", &port]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // It stays in the test's process group: Ctrl-C at the terminal, which runs no destructor, ends both.
        command
    }

    fn ports_dir(&self) -> PathBuf {
        self.dir.path().join("ports")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn signal(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // Gone already is as good.
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}

/// The port in a ports file, `{"nats":["nats://127.0.0.1:4222"]}`; nothing while the file is not there or half written.
fn read_port(file: &Path) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    ports.get("nats")?.get(0)?.as_str()?.rsplit_once(':')?.1.parse().ok()
}

/// Whether a server says INFO on that port; this needs no credentials.
fn greets(port: u16) -> bool {
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        std::io::Result::Ok(line.starts_with("INFO "))
    };
    connect().unwrap_or(false)
}
