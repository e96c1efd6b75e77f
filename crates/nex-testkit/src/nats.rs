//! A real nats-server, one per test, on a free loopback port and in its own directory. Dropping it removes both.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{eventually, nats_server_binary};

/// Timeout of starting and stopping a server, which takes about 20 ms.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Options of a nats-server; by default it has JetStream and no authentication.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Enables JetStream, in its own directory.
    pub jetstream: bool,
    /// Additional configuration in the syntax of nats-server, without a listen address.
    pub config: String,
    /// Addresses for which it has a certificate of its own; if there are any, it speaks TLS from the first byte on.
    pub certified: Vec<String>,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self { jetstream: true, config: String::new(), certified: Vec::new() }
    }
}

/// A running nats-server. Dropping it kills the server, waits for it and removes its files.
#[derive(Debug)]
pub struct NatsServer {
    options: NatsOptions,
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl NatsServer {
    /// Starts a server with default options and waits until it accepts clients.
    ///
    /// # Panics
    /// When there is no nats-server, or it does not come up.
    pub async fn start() -> Self {
        Self::start_with(NatsOptions::default()).await
    }

    /// Starts a server and waits until it accepts clients.
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

    /// Starts three servers that know of each other; `JetStream` answers when they have agreed on a leader.
    ///
    /// # Panics
    /// When one does not come up.
    #[expect(clippy::expect_used, reason = "no port, no test")]
    pub async fn start_cluster() -> Vec<Self> {
        let held: Vec<_> = (0..3).map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a port is free")).collect();
        let ports: Vec<u16> = held.iter().map(|held| held.local_addr().expect("it is bound").port()).collect();
        drop(held);
        let routes = ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect::<Vec<_>>().join(", ");
        let one = |(number, port): (usize, &u16)| {
            let listen = format!("\"127.0.0.1:{port}\"");
            let config = format!("server_name: s{number}\ncluster {{ name: c, listen: {listen}, routes: [{routes}] }}\n");
            Self::start_with(NatsOptions { config, ..NatsOptions::default() })
        };
        join_all(ports.iter().enumerate().map(one)).await
    }

    /// URL for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port; it stays the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id of the server, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Connects a client without credentials.
    ///
    /// # Panics
    /// When the server refuses.
    #[expect(clippy::expect_used, reason = "no connection, no test")]
    pub async fn client(&self) -> async_nats::Client {
        let mut options = async_nats::ConnectOptions::new();
        if !self.options.certified.is_empty() {
            options = options.add_root_certificates(self.certificate_file()).tls_first();
        }
        options.connect(self.url()).await.expect("the server of this test accepts a client")
    }

    /// Its certificate, PEM.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[expect(clippy::expect_used, reason = "who asks has given NatsOptions::certified")]
    pub fn certificate(&self) -> String {
        std::fs::read_to_string(self.certificate_file()).expect("a server with NatsOptions::certified has a certificate")
    }

    /// Kills the server with SIGKILL; [`Self::restart`] starts it again.
    pub fn kill9(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(&child, Signal::SIGKILL);
        // Reap it; the wait is short.
        drop(child.wait());
    }

    /// Restarts the server with the same port and store.
    ///
    /// # Panics
    /// When it does not come up again.
    pub async fn restart(&mut self) {
        if let Some(child) = self.child.as_mut() {
            signal(child, Signal::SIGTERM);
            let ended = eventually(TIMEOUT, || std::future::ready(!matches!(child.try_wait(), Ok(None)))).await;
            assert!(ended, "nats-server did not end within {TIMEOUT:?} of SIGTERM");
            self.child = None;
        }
        self.launch().await;
    }

    #[expect(clippy::panic, reason = "a test without its server has failed")]
    async fn launch(&mut self) {
        let child = self.command().spawn().unwrap_or_else(|error| panic!("nats-server does not start: {error}"));
        let ports_file = self.ports_dir().join(format!("nats-server_{}.ports", child.id()));
        // One that waits for TLS says nothing of itself; its ports file comes when it listens.
        let certified = !self.options.certified.is_empty();
        let child = self.child.insert(child);
        let mut found = None;
        let up = eventually(TIMEOUT, || {
            let dead = !matches!(child.try_wait(), Ok(None));
            found = read_port(&ports_file).filter(|port| certified || sends_info(*port));
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
        std::fs::write(&config, store + &self.tls() + &self.options.config).expect("the test's directory is writable");
        let log =
            std::fs::File::options().create(true).append(true).open(self.log_file()).expect("the test's directory is writable");
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };

        let mut command = Command::new(nats_server_binary());
        command.arg("--config").arg(config).arg("--ports_file_dir").arg(self.ports_dir());
        command.args(["--addr", "127.0.0.1", "--port", &port]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Keep it in the test's process group, so that Ctrl-C, which runs no destructors, ends it as well.
        command
    }

    #[expect(clippy::expect_used, reason = "no files, no test")]
    fn tls(&self) -> String {
        let (certificate, key) = (self.certificate_file(), self.dir.path().join("certificate.key"));
        if self.options.certified.is_empty() {
            return String::new();
        }
        if !certificate.exists() {
            let made = rcgen::generate_simple_self_signed(self.options.certified.clone()).expect("a certificate can be made");
            std::fs::write(&certificate, made.cert.pem()).expect("the test's directory is writable");
            std::fs::write(&key, made.signing_key.serialize_pem()).expect("the test's directory is writable");
        }
        format!("tls {{ cert_file: {certificate:?}, key_file: {key:?}, handshake_first: true }}\n")
    }

    fn certificate_file(&self) -> PathBuf {
        self.dir.path().join("certificate.pem")
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
        // It may have exited already.
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}

/// The port in a ports file, `{"nats":["nats://127.0.0.1:4222"]}`; `None` until the file is complete.
fn read_port(file: &Path) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    ports.get("nats")?.get(0)?.as_str()?.rsplit_once(':')?.1.parse().ok()
}

/// Whether a server sends INFO on a port, which needs no credentials.
fn sends_info(port: u16) -> bool {
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        std::io::Result::Ok(line.starts_with("INFO "))
    };
    connect().unwrap_or(false)
}
