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
use crate::blocking::blocking;
use crate::builtin::{self, Builtin};
use crate::cni::{self, Cni, list};
use crate::config::{CniConfig, NetworkConfig, NetworkKind, bound, check_id};
use crate::error::NetworkError;
use crate::gateway::{self, GatewayDevice};
use crate::leftovers::{self, Stale, remove_leftovers};
use crate::nft;
use crate::rules::{self, Guests, Rules};

/// Longest time to undo an attachment in the background.
const UNDO: Duration = Duration::from_secs(15);

/// One network of guests.
#[derive(Debug)]
pub struct Network {
    inner: Arc<Inner>,
    /// Attaching runs here, so that it completes even if its caller is cancelled.
    tasks: TaskScope,
}

#[derive(Debug)]
struct Inner {
    owner: String,
    state_dir: PathBuf,
    gateway_device: GatewayDevice,
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
        let listed_subnet = listed.as_ref().and_then(list::subnet);
        let subnet = config.subnet.or(listed_subnet.map(|(subnet, _)| subnet));
        let gateway = config.gateway.or(listed_subnet.and_then(|(_, gateway)| gateway));
        let owner = config.owner.clone();
        let gateway_device = bound(by, blocking(move || gateway::take(&owner, subnet, gateway))).await??;
        let (index, is_new) = (gateway_device.index, gateway_device.is_new);
        let opened = Self::open_on(config, gateway_device, listed, by).await;
        if opened.is_err() && is_new {
            let _undone = blocking(move || Ok(Netlink::open().and_then(|mut netlink| netlink.delete_link(index)))).await;
        }
        opened
    }

    async fn open_on(
        config: NetworkConfig,
        gateway_device: GatewayDevice,
        listed: Option<serde_json::Value>,
        by: Deadline,
    ) -> Result<Self, NetworkError> {
        let made = std::fs::create_dir_all(&config.state_dir);
        made.map_err(|source| NetworkError::File { action: "make", path: config.state_dir.clone(), source })?;
        let warnings = config.warnings();
        let guests = match config.kind {
            NetworkKind::Builtin => Guests::Named(gateway_device.names.tap_prefix()),
            NetworkKind::Cni(_) => Guests::Group(gateway_device.names.group()),
        };
        let (subnet, gateway) = (gateway_device.subnet, gateway_device.gateway);
        let rules = Rules { owner: &config.owner, guests, subnet, gateway, policy: &config.policy };
        let kind = kind(&config, &gateway_device, listed)?;
        nft::load("load the rules", rules.text(), by).await?;
        let inner = Inner {
            owner: config.owner,
            state_dir: config.state_dir,
            gateway_device,
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
        self.inner.gateway_device.gateway
    }

    /// The guests' subnet.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Net {
        self.inner.gateway_device.subnet
    }

    /// Ports of the gateway's address that lead to the host's 127.0.0.1: guests find nothing else there.
    #[must_use]
    pub fn loopback_ports(&self) -> &BTreeSet<u16> {
        &self.inner.loopback_ports
    }

    /// Warnings for the operator, each with the command that helps.
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

    /// Takes over a guest's connection that an earlier process of this owner made; a later sweep spares it. Returns whether it still
    /// stands and is one of this network.
    ///
    /// # Errors
    /// When the host refuses; the sweep then removes it.
    pub async fn adopt(&self, attachment: &Attachment, by: Deadline) -> Result<bool, NetworkError> {
        let stands = !self.inner.closed.load(Ordering::Acquire)
            && match &self.inner.kind {
                Kind::Builtin(builtin) => {
                    let (builtin, found) = (Arc::clone(builtin), attachment.clone());
                    bound(by, blocking(move || builtin.readopt(&found))).await??
                }
                Kind::Cni(_) => {
                    let has_record = cni::ids(&self.inner.owner, &self.inner.state_dir).contains(&attachment.id);
                    has_record && attachment.netns.as_ref().is_some_and(|netns| netns.exists())
                }
            };
        if stands {
            self.inner.live().insert(attachment.id.clone());
        }
        Ok(stands)
    }

    /// The same of a process, whose namespace this is. The ports of its own 127.0.0.1 are those of this network's policy from here on.
    /// Nothing if it is not there any more, or of another network.
    ///
    /// # Errors
    /// When the host refuses; the sweep then removes it.
    pub async fn adopt_process(
        &self,
        attachment: &Attachment,
        netns: OwnedFd,
        by: Deadline,
    ) -> Result<Option<Attachment>, NetworkError> {
        if !self.adopt(attachment, by).await? {
            return Ok(None);
        }
        let ports = &self.inner.loopback_ports;
        if attachment.loopback_ports != *ports {
            nft::load_in(Arc::new(netns), rules::loopback(self.inner.gateway_device.gateway, ports), by).await?;
        }
        Ok(Some(Attachment { loopback_ports: ports.clone(), ..attachment.clone() }))
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
            // A sent answer counts only once the caller has acknowledged it.
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

    /// Restricts a guest of the built-in network to the permitted ports of the gateway and the policy's servers.
    ///
    /// # Errors
    /// When its device is gone or the kernel refuses.
    pub async fn restrict(&self, attachment: &Attachment) -> Result<(), NetworkError> {
        let attachment = attachment.clone();
        blocking(move || builtin::restrict(&attachment)).await
    }

    /// Removes a guest's connection; one that is gone already is fine. Returns whether nothing is left of it.
    pub async fn detach(&self, attachment: &Attachment, by: Deadline) -> bool {
        self.inner.detach(attachment, by).await
    }

    /// Removes what an earlier process of this owner left, but for the guests named. Returns how many connections and unused
    /// networks were removed.
    pub async fn sweep(&self, keep: &BTreeSet<String>, by: Deadline) -> usize {
        let kept: BTreeSet<_> = keep.union(&self.inner.live()).cloned().collect();
        let removed = leftovers::guests(&self.inner.owner, &self.inner.state_dir, &kept, by).await;
        let inner = Arc::clone(&self.inner);
        let deleted = blocking(move || {
            let none = Mutex::default();
            let pending = if let Kind::Builtin(builtin) = &inner.kind { &builtin.pending } else { &none };
            // Guests that were attached while the plug-ins ran.
            let kept = kept.union(&inner.live()).cloned().collect();
            Ok(leftovers::delete(&inner.owner, &Stale { keep: &kept, pending, gateway_device: Some(inner.gateway_device.index) }))
        });
        removed + bound(by, deleted).await.and_then(|deleted| deleted).unwrap_or(0)
    }

    /// The same as [`Network::close`], but guests to keep have their connections and what those need, for the next network of this owner.
    pub async fn leave(&self, keep: &BTreeSet<String>, by: Deadline) {
        if keep.is_empty() {
            return self.close(by).await;
        }
        self.inner.closed.store(true, Ordering::Release);
        self.tasks.shutdown(by.remaining()).await;
        self.sweep(keep, by).await;
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
        let (mut attachment, netns) = blocking(move || builtin.attach_namespace(&owned)).await?;
        let netns = Arc::new(netns);
        attachment.loopback_ports.clone_from(&self.loopback_ports);
        if !self.loopback_ports.is_empty() {
            let rules = rules::loopback(self.gateway_device.gateway, &self.loopback_ports);
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
        // Not live any more, so that a sweep removes what is left.
        self.live().remove(&attachment.id);
        gone
    }

    fn live(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kind(config: &NetworkConfig, gateway_device: &GatewayDevice, listed: Option<serde_json::Value>) -> Result<Kind, NetworkError> {
    let limits = config.limits.unwrap_or_default();
    let (owner, gateway_device, to_loopback) =
        (config.owner.clone(), gateway_device.clone(), !config.policy.loopback_ports().is_empty());
    Ok(match &config.kind {
        NetworkKind::Builtin => {
            let (next, pending) = (AtomicU32::new(0), Mutex::default());
            Kind::Builtin(Arc::new(Builtin { owner, gateway_device, limits, to_loopback, next, pending }))
        }
        NetworkKind::Cni(cni) => {
            let state_dir = config.state_dir.clone();
            let value = listed.unwrap_or_else(|| list::generate(cni, gateway_device.subnet, gateway_device.gateway));
            let list = list::resolve(cni, &value, &state_dir.join("cni").join("leases"))?;
            let config = CniConfig::clone(cni);
            Kind::Cni(Box::new(Cni { owner, gateway_device, config, list, state_dir, limits, to_loopback }))
        }
    })
}
