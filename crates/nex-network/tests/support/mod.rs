//! A host and guests made of network namespaces: the host is a namespace of the test's own, so that tests can run side by side and
//! leave nothing; a guest is a namespace whose device is joined to the tap by two threads that carry frames, as a VMM does.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a helper that fails fails its test")]

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nex_network::{Attachment, NetworkConfig, NetworkKind, Policy};
use nex_process::tap::{claim_tap, create_tap};
use nex_process::{ChildSpec, Deadline, Output};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Long enough on a loaded machine.
pub const LONG: Duration = Duration::from_secs(60);
/// How long a guest waits for an answer that must not come.
pub const SHORT: Duration = Duration::from_millis(400);

pub fn soon() -> Deadline {
    Deadline::after(LONG)
}

/// The reason to skip tests with real devices, if there is one.
pub fn obstacle() -> Option<String> {
    nex_network::check(&NetworkKind::Builtin).first().map(|lack| format!("{} ({})", lack.what, lack.advice))
}

/// Runs a test in a namespace of its own, which acts as the host.
pub fn in_a_host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let host = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        // Its threads, and so its children, start in the namespace.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            run("ip", &["link", "set", "lo", "up"]).await;
            test().await;
        });
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A name that is unique to this process.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{:x}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn config(owner: &str, state_dir: &Path, policy: Policy) -> NetworkConfig {
    let (owner, state_dir) = (owner.to_owned(), state_dir.to_owned());
    NetworkConfig { kind: NetworkKind::Builtin, owner, state_dir, subnet: None, gateway: None, policy, limits: None }
}

/// Runs a program and returns its output; it must succeed.
pub async fn run(program: &str, args: &[&str]) -> String {
    let path = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(program));
    let path = path.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("{program} is not installed"));
    let said = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&said);
    let lines = Output::Lines(Arc::new(move |line: &str| {
        sink.lock().unwrap().push_str(line);
        sink.lock().unwrap().push('\n');
    }));
    let child = ChildSpec::new(path).args(args).stdout(lines.clone()).stderr(lines).spawn().unwrap();
    let exit = soon().bound(child.exited()).await.unwrap();
    let said = said.lock().unwrap().clone();
    assert!(exit.is_success(), "{program} {args:?}: {exit}: {said}");
    said
}

/// Everything of the host that a network could change, as text.
pub async fn host_state() -> String {
    let links = run("ip", &["-o", "link"]).await;
    // The kernel reports a change of carrier later.
    let links: Vec<_> =
        links.split(' ').filter(|word| !word.starts_with('<') && !["DOWN", "UP", "UNKNOWN"].contains(word)).collect();
    let links = links.join(" ");
    let routes = run("ip", &["-4", "route", "show", "table", "all"]).await;
    let addresses = run("ip", &["-o", "-4", "address"]).await;
    let tables = run("nft", &["list", "ruleset"]).await;
    let queues = run("tc", &["qdisc"]).await;
    format!("{links}--\n{routes}--\n{addresses}--\n{tables}--\n{queues}")
}

/// Runs a function inside a namespace.
pub fn inside<T: Send + 'static>(netns: &Path, function: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(netns).unwrap();
    let thread = std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        function()
    });
    thread.join().unwrap()
}

/// A named namespace, removed when dropped.
pub struct Netns(pub String);

impl Netns {
    pub async fn new() -> Self {
        let name = format!("nextest-{}", unique());
        run("ip", &["netns", "add", &name]).await;
        run("ip", &["-n", &name, "link", "set", "lo", "up"]).await;
        Self(name)
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    pub async fn ip(&self, args: &str) -> String {
        let args: Vec<_> = ["-n", &self.0].into_iter().chain(args.split(' ')).collect();
        run("ip", &args).await
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _gone = umount2(&self.path(), MntFlags::MNT_DETACH);
        let _gone = fs::remove_file(self.path());
    }
}

/// A guest behind a tap.
pub struct Guest {
    pub netns: Netns,
    pub attachment: Attachment,
}

impl Guest {
    /// Configured as its attachment says.
    pub async fn boot(attachment: &Attachment) -> Self {
        let netns = Netns::new().await;
        let inner = inside(&netns.path(), || create_tap("eth0")).unwrap();
        let tap = attachment.tap.clone();
        let outer = match attachment.netns.clone() {
            Some(path) => inside(&path, move || claim_tap(&tap)),
            None => claim_tap(&tap),
        };
        let outer = outer.unwrap();
        forward_frames(inner.try_clone().unwrap(), outer.try_clone().unwrap());
        forward_frames(outer, inner);
        let mac = attachment.mac.map(|byte| format!("{byte:02x}")).join(":");
        netns.ip(&format!("link set eth0 address {mac} mtu {} up", attachment.mtu)).await;
        netns.ip(&format!("address add {}/{} dev eth0", attachment.address, attachment.prefix)).await;
        netns.ip(&format!("route add default via {}", attachment.gateway)).await;
        Self { netns, attachment: attachment.clone() }
    }

    /// Whether a TCP connection succeeds.
    pub fn connects(&self, address: Ipv4Addr, port: u16) -> bool {
        self.connects_within(address, port, Duration::from_secs(10))
    }

    /// The same for one that must not.
    pub fn is_refused(&self, address: Ipv4Addr, port: u16) -> bool {
        !self.connects_within(address, port, SHORT)
    }

    fn connects_within(&self, address: Ipv4Addr, port: u16, timeout: Duration) -> bool {
        self.inside(move || TcpStream::connect_timeout(&to(address, port), timeout).is_ok())
    }

    /// Sends a datagram from an address, which need not be its own.
    pub fn send(&self, from: Ipv4Addr, address: Ipv4Addr, port: u16, text: &'static str) -> io::Result<()> {
        self.inside(move || {
            let socket = std::net::UdpSocket::bind((from, 0))?;
            socket.send_to(text.as_bytes(), to(address, port)).map(drop)
        })
    }

    pub fn inside<T: Send + 'static>(&self, function: impl FnOnce() -> T + Send + 'static) -> T {
        inside(&self.netns.path(), function)
    }
}

pub fn to(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(address, port))
}

/// Forwards frames until one of the devices is gone.
fn forward_frames(mut from: File, mut to: File) {
    std::thread::spawn(move || {
        let mut frame = vec![0; 70_000];
        loop {
            match from.read(&mut frame) {
                Ok(length) => drop(to.write(&frame[..length])),
                // The device is not up yet.
                Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => std::thread::yield_now(),
                Err(_gone) => return,
            }
        }
    });
}

/// A server that accepts and keeps what comes, in the caller's namespace.
pub fn listen(address: Ipv4Addr, port: u16) -> u16 {
    let listener = TcpListener::bind((address, port)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let _kept: Vec<_> = listener.incoming().collect();
    });
    port
}

/// Whether a TCP connection from the caller's namespace comes about.
pub fn connects(address: Ipv4Addr, port: u16, timeout: Duration) -> bool {
    TcpStream::connect_timeout(&to(address, port), timeout).is_ok()
}

pub fn with_kind(mut config: NetworkConfig, kind: NetworkKind) -> NetworkConfig {
    config.kind = kind;
    config
}
