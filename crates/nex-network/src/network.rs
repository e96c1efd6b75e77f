//! One network of guests, from open to close.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::Ipv4Net;
use nex_netlink::Netlink;
use nex_process::{Deadline, TaskScope};
use tokio::sync::oneshot;

use crate::attachment::Attachment;
use crate::builtin::{self, Builtin};
use crate::cni::{self, Cni, list};
use crate::config::{CniConfig, NetworkConfig, NetworkKind, bound, check_id};
use crate::error::NetworkError;
use crate::gateway::{self, GatewayDevice};
use crate::leftovers::{self, Stale, remove_leftovers};
use crate::rules::{self, Guests, Rules};
use crate::{blocking, nft, sysctl};

/// How long undoing may take when nobody waits for it.
const UNDO: Duration = Duration::from_secs(15);

/// One network of guests.
#[derive(Debug)]
pub struct Network {
    inner: Arc<Inner>,
    /// Attaching runs here, so that it comes to its end even if its caller went away.
    tasks: TaskScope,
}

#[derive(Debug)]
struct Inner {
    owner: String,
    state_dir: PathBuf,
    anchor: GatewayDevice,
    kind: Kind,
    warnings: Vec<String>,
    /// Ports of the gateway that lead to the host's loopback.
    loopback_ports: BTreeSet<u16>,
    closed: AtomicBool,
    /// Guests that this process attaches or has attached.
    live: Mutex<BTreeSet<String>>,
}

#[derive(Debug)]
enum Kind {
    Builtin(Arc<Builtin>),
    Cni(Box<Cni>),
}

impl Network {
    /// Opens the network: its device with the gateway's address, and its packet filter. What an earlier process of this owner
    /// left is kept until [`sweep`](Self::sweep).
    ///
    /// # Errors
    /// When the configuration is unusable, the subnet is taken, or the host refuses; nothing is left then.
    pub async fn open(config: NetworkConfig, by: Deadline) -> Result<Self, NetworkError> {
        config.check()?;
        let listed = match &config.kind {
            NetworkKind::Builtin => None,
            NetworkKind::Cni(cni) => list::read(cni)?,
        };
        let said = listed.as_ref().and_then(list::subnet);
        let subnet = config.subnet.or(said.map(|(subnet, _)| subnet));
        let gateway = config.gateway.or(said.and_then(|(_, gateway)| gateway));
        let owner = config.owner.clone();
        let anchor = bound(by, blocking(move || gateway::take(&owner, subnet, gateway))).await??;
        let (index, is_new) = (anchor.index, anchor.is_new);
        let opened = Self::open_on(config, anchor, listed, by).await;
        if opened.is_err() && is_new {
            let _undone = blocking(move || Ok(Netlink::open().and_then(|mut netlink| netlink.delete_link(index)))).await;
        }
        opened
    }

    async fn open_on(
        config: NetworkConfig,
        anchor: GatewayDevice,
        listed: Option<serde_json::Value>,
        by: Deadline,
    ) -> Result<Self, NetworkError> {
        let made = std::fs::create_dir_all(&config.state_dir);
        made.map_err(|source| NetworkError::File { action: "make", path: config.state_dir.clone(), source })?;
        let warnings = warnings(&config);
        let guests = match config.kind {
            NetworkKind::Builtin => Guests::Named(anchor.names.tap_prefix()),
            NetworkKind::Cni(_) => Guests::Group(anchor.names.group()),
        };
        let (subnet, gateway) = (anchor.subnet, anchor.gateway);
        let rules = Rules { owner: &config.owner, guests, subnet, gateway, policy: &config.policy };
        let kind = kind(&config, &anchor, listed)?;
        nft::load("load the rules", rules.text(), by).await?;
        let inner = Inner {
            owner: config.owner,
            state_dir: config.state_dir,
            anchor,
            kind,
            warnings,
            loopback_ports: config.policy.loopback_ports(),
            closed: AtomicBool::new(false),
            live: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner), tasks: TaskScope::new("network") })
    }

    /// The host's address in the guests' subnet.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.inner.anchor.gateway
    }

    /// The guests' subnet.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Net {
        self.inner.anchor.subnet
    }

    /// What the operator should know, each with the command to type.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// Lets guests reach this TCP port of the gateway's address.
    ///
    /// # Errors
    /// When the packet filter refuses.
    pub async fn permit_gateway_port(&self, port: u16) -> Result<(), NetworkError> {
        nft::load("permit a port", rules::permit(&self.inner.owner, port), Deadline::after(UNDO)).await
    }

    /// Connects a guest. A failure leaves nothing behind. The opener is the user who may open its tap by name; root if absent.
    ///
    /// # Errors
    /// When the id is unusable or taken, the subnet is full, the host or a plug-in refuses, or the deadline passes.
    ///
    /// # Cancel safety
    /// If the future is dropped, what was made is undone in the background.
    pub async fn attach(&self, id: &str, opener: Option<u32>, by: Deadline) -> Result<Attachment, NetworkError> {
        let attach = move |inner: Arc<Inner>, id: String| async move { Ok((inner.attach(&id, opener, by).await?, ())) };
        self.attach_by(id, attach, by).await.map(|(attachment, ())| attachment)
    }

    /// Makes a namespace for a process and connects it, in the built-in network. The namespace lives as long as the descriptor or a
    /// process in it. At its own 127.0.0.1, the process finds the ports of the policy's `host_ports` and loopback servers.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    ///
    /// # Cancel safety
    /// As [`attach`](Self::attach).
    pub async fn attach_process(&self, id: &str, by: Deadline) -> Result<(Attachment, Arc<OwnedFd>), NetworkError> {
        self.attach_by(id, move |inner, id| async move { inner.attach_process(&id, by).await }, by).await
    }

    async fn attach_by<T, F>(
        &self,
        id: &str,
        attach: impl FnOnce(Arc<Inner>, String) -> F,
        by: Deadline,
    ) -> Result<(Attachment, T), NetworkError>
    where
        T: Send + 'static,
        F: Future<Output = Result<(Attachment, T), NetworkError>> + Send + 'static,
    {
        check_id(id)?;
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(NetworkError::Closed);
        }
        if !self.inner.live().insert(id.to_owned()) {
            return Err(NetworkError::Exists(id.to_owned()));
        }
        let (report, result) = oneshot::channel();
        let (take, taken) = oneshot::channel();
        let (inner, id) = (Arc::clone(&self.inner), id.to_owned());
        let attached = attach(Arc::clone(&inner), id.clone());
        self.tasks.spawn("attach", async move {
            let made = attached.await;
            let attachment = made.as_ref().ok().map(|(attachment, _)| attachment.clone());
            // Not even an answer that was sent has arrived until the other side says so.
            let arrived = report.send(made).is_ok() && taken.await.is_ok();
            match attachment {
                Some(attachment) if !arrived => drop(inner.detach(&attachment, Deadline::after(UNDO)).await),
                Some(_) => {}
                None => drop(inner.live().remove(&id)),
            }
        });
        let made = bound(by, result).await?.map_err(|_aborted| NetworkError::Closed)?;
        let _taken = take.send(());
        made
    }

    /// Leaves a guest of the built-in network no more than the permitted ports of the gateway and the policy's servers.
    ///
    /// # Errors
    /// When its device is gone or the kernel refuses.
    pub async fn restrict(&self, attachment: &Attachment) -> Result<(), NetworkError> {
        let attachment = attachment.clone();
        blocking(move || builtin::restrict(&attachment)).await
    }

    /// Removes a guest's connection; one that is gone already is fine. Says whether nothing is left of it.
    pub async fn detach(&self, attachment: &Attachment, by: Deadline) -> bool {
        self.inner.detach(attachment, by).await
    }

    /// Removes what an earlier process of this owner left, but for the guests named. Says how many connections and unused
    /// networks were removed.
    pub async fn sweep(&self, keep: &BTreeSet<String>, by: Deadline) -> usize {
        let spare: BTreeSet<_> = keep.union(&self.inner.live()).cloned().collect();
        let removed = leftovers::guests(&self.inner.owner, &self.inner.state_dir, &spare, by).await;
        let inner = Arc::clone(&self.inner);
        let deleted = blocking(move || {
            let none = Mutex::default();
            let making = if let Kind::Builtin(builtin) = &inner.kind { &builtin.making } else { &none };
            // Those that came while the plug-ins ran.
            let spare = spare.union(&inner.live()).cloned().collect();
            Ok(leftovers::delete(&inner.owner, &Stale { spare: &spare, making, anchor: Some(inner.anchor.index) }))
        });
        removed + bound(by, deleted).await.and_then(|deleted| deleted).unwrap_or(0)
    }

    /// Removes the filter, the devices and all guests' connections. Later calls find the network closed.
    pub async fn close(&self, by: Deadline) {
        self.inner.closed.store(true, Ordering::Release);
        self.tasks.shutdown(by.remaining()).await;
        remove_leftovers(&self.inner.owner, &self.inner.state_dir, by).await;
    }
}

impl Inner {
    async fn attach(self: &Arc<Self>, id: &str, opener: Option<u32>, by: Deadline) -> Result<Attachment, NetworkError> {
        match &self.kind {
            Kind::Builtin(builtin) => {
                let (builtin, id) = (Arc::clone(builtin), id.to_owned());
                blocking(move || builtin.attach(&id, opener)).await
            }
            Kind::Cni(cni) => {
                if cni::ids(&self.owner, &self.state_dir).contains(id) {
                    return Err(NetworkError::Exists(id.to_owned()));
                }
                let made = cni.attach(id, by).await;
                if made.is_err() {
                    cni::detach(&self.owner, &self.state_dir, id, Deadline::after(UNDO)).await;
                }
                made
            }
        }
    }

    async fn attach_process(self: Arc<Self>, id: &str, by: Deadline) -> Result<(Attachment, Arc<OwnedFd>), NetworkError> {
        let Kind::Builtin(builtin) = &self.kind else {
            return Err(NetworkError::Config("processes are connected by the built-in network only".to_owned()));
        };
        let (builtin, owned) = (Arc::clone(builtin), id.to_owned());
        let (attachment, netns) = blocking(move || builtin.attach_namespace(&owned)).await?;
        let netns = Arc::new(netns);
        if !self.loopback_ports.is_empty() {
            let rules = rules::loopback(self.anchor.gateway, &self.loopback_ports);
            if let Err(error) = nft::load_in(Arc::clone(&netns), rules, by).await {
                self.detach(&attachment, Deadline::after(UNDO)).await;
                return Err(error);
            }
        }
        Ok((attachment, netns))
    }

    async fn detach(&self, attachment: &Attachment, by: Deadline) -> bool {
        let gone = if attachment.netns.is_some() {
            cni::detach(&self.owner, &self.state_dir, &attachment.id, by).await
        } else {
            let (owner, attachment) = (self.owner.clone(), attachment.clone());
            let detached = bound(by, blocking(move || builtin::detach(&owner, &attachment))).await;
            let detached = detached.and_then(|detached| detached);
            if let Err(error) = &detached {
                tracing::warn!(%error, "a guest's network was not removed; a later sweep tries again");
            }
            detached.is_ok()
        };
        // What is left is nobody's from now on, so that a sweep finds it.
        self.live().remove(&attachment.id);
        gone
    }

    fn live(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kind(config: &NetworkConfig, anchor: &GatewayDevice, listed: Option<serde_json::Value>) -> Result<Kind, NetworkError> {
    let limits = config.limits.unwrap_or_default();
    let (owner, anchor, to_loopback) = (config.owner.clone(), anchor.clone(), !config.policy.loopback_ports().is_empty());
    Ok(match &config.kind {
        NetworkKind::Builtin => {
            let (next, making) = (AtomicU32::new(0), Mutex::default());
            Kind::Builtin(Arc::new(Builtin { owner, anchor, limits, to_loopback, next, making }))
        }
        NetworkKind::Cni(cni) => {
            let state_dir = config.state_dir.clone();
            let value = listed.unwrap_or_else(|| list::generate(cni, anchor.subnet, anchor.gateway));
            let list = list::resolve(cni, &value, &state_dir.join("cni").join("leases"))?;
            let config = CniConfig::clone(cni);
            Kind::Cni(Box::new(Cni { owner, anchor, config, list, state_dir, limits, to_loopback }))
        }
    })
}

fn warnings(config: &NetworkConfig) -> Vec<String> {
    if sysctl::forwards() {
        return Vec::new();
    }
    match config.kind {
        NetworkKind::Builtin if !config.policy.leads_beyond() => Vec::new(),
        NetworkKind::Builtin => vec![
            "the policy lets guests out, but this host passes no packets on; next: sysctl -w net.ipv4.ip_forward=1".to_owned(),
        ],
        NetworkKind::Cni(_) => {
            vec![
                "this host passes no packets on; the plug-in ptp will switch net.ipv4.ip_forward on for the whole host"
                    .to_owned(),
            ]
        }
    }
}
