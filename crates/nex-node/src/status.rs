//! What a running node says of itself: since when it runs, its tags, and whether it drains.

use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use nex_protocol::control::{self, Tags};
use nex_protocol::deploy::Isolation;
use tokio::sync::watch;

use crate::config::{Demands, NodeConfig};
use crate::identity::Identity;

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A node takes no more workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// When what still runs is stopped.
    pub until: Option<Instant>,
}

/// The status of a node.
#[derive(Debug)]
pub struct NodeStatus {
    started: Instant,
    /// They change once, when it begins to drain.
    tags: RwLock<Tags>,
    /// Set when it begins to drain: until when, if there is an end to it.
    draining: watch::Sender<Option<Drain>>,
}

impl NodeStatus {
    /// A node that starts now, with the operator's tags, those of its sandboxes, and what it knows of its host.
    #[must_use]
    pub fn new(config: &NodeConfig, sandboxes: Tags, identity: &Identity) -> Self {
        let tags = RwLock::new(tags(config, sandboxes, identity));
        Self { started: Instant::now(), tags, draining: watch::Sender::new(None) }
    }

    /// How long it has run, as the wire has it.
    #[must_use]
    pub fn uptime(&self) -> String {
        control::uptime(self.started.elapsed())
    }

    /// How long it has run, ms.
    #[must_use]
    pub fn running_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> Tags {
        self.tags.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it drains.
    #[must_use]
    pub fn is_lame_duck(&self) -> bool {
        self.draining.borrow().is_some()
    }

    /// Waits until it drains.
    pub async fn drains(&self) -> Drain {
        let mut draining = self.draining.subscribe();
        match draining.wait_for(Option::is_some).await.map(|drain| *drain) {
            Ok(Some(drain)) => drain,
            _ => std::future::pending().await,
        }
    }

    /// Waits until it drains with another end than this one.
    pub async fn drains_otherwise(&self, than: Drain) {
        self.draining.subscribe().wait_for(|drain| *drain != Some(than)).await.ok();
    }

    /// What is demanded has changed.
    pub fn set_demands(&self, demands: Demands) {
        let mut tags = self.tags.write().unwrap_or_else(PoisonError::into_inner);
        match demands.names() {
            Some(names) => drop(tags.insert("nex.demands".to_owned(), names)),
            None => drop(tags.remove("nex.demands")),
        }
    }

    /// Begins to drain, or drains with another end; says whether it is new that it drains.
    pub fn enter_lame_duck(&self, until: Option<Instant>) -> bool {
        self.tags.write().unwrap_or_else(PoisonError::into_inner).insert("nex.lameduck".into(), "true".into());
        let mut is_new = false;
        self.draining.send_modify(|drain| {
            is_new = drain.is_none();
            let until = until.or(drain.and_then(|drain| drain.until));
            *drain = Some(Drain { until });
        });
        is_new
    }
}

fn tags(config: &NodeConfig, sandboxes: Tags, identity: &Identity) -> Tags {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut tags = config.tags.clone();
    let short: String = identity.node.as_str().chars().skip(1).take(8).collect::<String>().to_lowercase();
    tags.entry("node_name".into()).or_insert_with(|| format!("node-{short}"));
    tags.extend(sandboxes);
    tags.extend(config.demands.names().map(|names| ("nex.demands".to_owned(), names)));
    tags.extend(config.http.as_ref().map(|http| ("nex.http".to_owned(), http.listen.to_string())));
    tags.insert("nex.isolation".into(), Isolation::names(&config.isolation.may_be_asked()));
    tags.insert("nex.os".into(), std::env::consts::OS.into());
    tags.insert("nex.arch".into(), arch.into());
    tags.insert("nex.cpucount".into(), std::thread::available_parallelism().map_or(1, usize::from).to_string());
    tags
}
