//! Deploys and stops while everything around is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nex_client::deploy::Deployment;
use nex_process::TaskScope;

use crate::fixture::Deployer;

/// Between a deploy and the next.
const PAUSE: Duration = Duration::from_millis(150);
/// Longest time of a deploy or a stop; an answer that is lost with a server is not waited for.
const ANSWER: Duration = Duration::from_secs(15);

/// What the load has done.
#[derive(Debug, Default)]
struct Counted {
    deployed: AtomicU64,
    stopped: AtomicU64,
    /// Deploys and stops that came to nothing because something was down, and those whose answer was lost.
    unanswered: AtomicU64,
}

/// The load.
pub(crate) struct Churn {
    counted: Arc<Counted>,
    scope: TaskScope,
}

impl Churn {
    /// Deploys and stops until [`Self::stop`].
    pub(crate) fn start(deployer: Arc<Deployer>, deployment: Deployment) -> Self {
        let (scope, counted) = (TaskScope::new("churn"), Arc::new(Counted::default()));
        let (counts, cancel) = (Arc::clone(&counted), scope.cancel_token());
        scope.spawn("churn", async move {
            let mut number = 0_u64;
            while !cancel.is_cancelled() {
                number += 1;
                counts.cycle(&deployer, &deployment, number).await;
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { counted, scope }
    }

    /// Ends it; gives how many were deployed, how many stopped, and how many requests were not answered.
    pub(crate) async fn stop(self) -> [u64; 3] {
        self.scope.shutdown(3 * ANSWER).await;
        let Counted { deployed, stopped, unanswered } = &*self.counted;
        [deployed, stopped, unanswered].map(|count| count.load(Ordering::Acquire))
    }
}

impl Counted {
    async fn cycle(&self, deployer: &Deployer, deployment: &Deployment, number: u64) {
        let Ok(name) = format!("churn-{number}").parse() else { return };
        let deployment = Deployment { name, ..deployment.clone() };
        let Ok(Ok(started)) = tokio::time::timeout(ANSWER, deployer.deploy(&deployment)).await else {
            self.unanswered.fetch_add(1, Ordering::AcqRel);
            return;
        };
        self.deployed.fetch_add(1, Ordering::AcqRel);
        let count = match tokio::time::timeout(ANSWER, deployer.stop(&started.id, &started.name)).await {
            Ok(Ok(())) => &self.stopped,
            _unheard => &self.unanswered,
        };
        count.fetch_add(1, Ordering::AcqRel);
    }
}
