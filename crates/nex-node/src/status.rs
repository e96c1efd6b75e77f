//! What a running node says of itself: since when it runs, its tags, and whether it drains.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use nex_protocol::control::{self, Tags};

use crate::config::NodeConfig;
use crate::identity::Identity;

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The status of a node.
#[derive(Debug)]
pub struct NodeStatus {
    started: Instant,
    /// They change once, when it begins to drain.
    tags: RwLock<Tags>,
    lame_duck: AtomicBool,
}

impl NodeStatus {
    /// A node that starts now, with the operator's tags, those of its sandboxes, and what it knows of its host.
    #[must_use]
    pub fn new(config: &NodeConfig, sandboxes: Tags, identity: &Identity) -> Self {
        let tags = RwLock::new(tags(config, sandboxes, identity));
        Self { started: Instant::now(), tags, lame_duck: AtomicBool::new(false) }
    }

    /// How long it has run, as the wire has it.
    #[must_use]
    pub fn uptime(&self) -> String {
        control::uptime(self.started.elapsed())
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> Tags {
        self.tags.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it drains.
    #[must_use]
    pub fn is_lame_duck(&self) -> bool {
        self.lame_duck.load(Ordering::Acquire)
    }

    /// Begins to drain; says whether that is new.
    pub fn enter_lame_duck(&self) -> bool {
        self.tags.write().unwrap_or_else(PoisonError::into_inner).insert("nex.lameduck".into(), "true".into());
        !self.lame_duck.swap(true, Ordering::AcqRel)
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
    tags.insert("nex.os".into(), std::env::consts::OS.into());
    tags.insert("nex.arch".into(), arch.into());
    tags.insert("nex.cpucount".into(), std::thread::available_parallelism().map_or(1, usize::from).to_string());
    tags
}
