//! What the parts of a running node share: who it is, what it has, and whether it drains.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use async_nats::Client;
use nex_protocol::claims::{Claims, Place};
use nex_protocol::control::Tags;
use nex_protocol::envelope::{ErrorCode, Failure};

use crate::config::NodeConfig;
use crate::identity::Identity;
use crate::journal::{Spending, SpentToken};
use crate::outbox::Outbox;
use crate::registry::Registry;
use crate::workload::runtime::DriverServices;

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the parts of a running node share.
#[derive(Debug)]
pub struct Shared {
    /// Its keys.
    pub identity: Identity,
    /// Its configuration.
    pub config: NodeConfig,
    /// Its control connection.
    pub nats: Client,
    /// Name of the group of nodes.
    pub nexus: String,
    /// Its version.
    pub version: &'static str,
    /// When it started.
    pub started: Instant,
    /// Its workloads.
    pub registry: Registry,
    /// What the drivers of its workloads share.
    pub drivers: Arc<DriverServices>,
    /// What it tells the world.
    pub outbox: Outbox,
    /// Its tags; they change once, when it begins to drain.
    pub(crate) tags: RwLock<Tags>,
    /// Whether it drains.
    pub(crate) lame_duck: AtomicBool,
}

impl Shared {
    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> Tags {
        self.tags.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This node and a namespace on it, to be compared with what claims are bound to.
    #[must_use]
    pub fn place<'a>(&'a self, namespace: &'a str) -> Place<'a> {
        Place { node: &self.identity.node, nexus: &self.nexus, namespace }
    }

    /// Uses up a token.
    ///
    /// # Errors
    /// When it was used before, or its issuer has used too many.
    pub async fn spend(&self, claims: &Claims, request: &str, until: i64, now: i64) -> Result<(), Failure> {
        let token = SpentToken { issuer: claims.iss.clone(), id: claims.jti.clone(), until };
        match self.drivers.journal.spend_token(token, now).await {
            Ok(Spending::Done) => Ok(()),
            Ok(Spending::UsedBefore) => {
                let why =
                    format!("Invalid {request} request: this workload JWT was used before; sign a new one for each {request}");
                Err(Failure::new(ErrorCode::Denied, why))
            }
            Ok(Spending::TooMany) => Err(Failure::new(
                ErrorCode::Unavailable,
                "this issuer has used too many workload JWTs that have not expired yet; sign them with a nearer expiry, or wait",
            )),
            Err(error) => Err(Failure::new(ErrorCode::Internal, error.to_string())),
        }
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
