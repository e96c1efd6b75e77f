//! What the server does not permit a connection. NATS tells of it apart from what was asked, and whoever asked would wait in vain.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use futures::StreamExt as _;
use tokio::sync::watch;

/// Most denials remembered.
const MAX: usize = 256;
/// Target of the log lines that tell of denials: whoever tells of them himself leaves these out.
pub const LOG_TARGET: &str = "nex_bus::denials";
/// Last token of the subject by which one knows that all before it was heard.
const FENCE: &str = "nex-fence";
/// Longest wait for that.
const SETTLE: Duration = Duration::from_secs(10);

/// Something that a connection's user may not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("denied: this user may not {} \"{subject}\"; next: {}", .action.verb(), self.advice())]
pub struct Denial {
    /// What was tried.
    pub action: Action,
    /// On which subject.
    pub subject: String,
}

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To publish.
    Publish,
    /// To subscribe.
    Subscribe,
}

impl Action {
    /// As it stands before a subject.
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Self::Publish => "publish to",
            Self::Subscribe => "subscribe to",
        }
    }
}

impl Denial {
    fn advice(&self) -> &'static str {
        match self.action {
            Action::Publish if self.subject.starts_with("_INBOX") => {
                "let it respond to what it is asked (allow_responses; docs/security.md says who needs what)"
            }
            _ => "permit it (docs/security.md says who needs what), or connect as another user",
        }
    }

    /// Reads what a server says: `Permissions Violation for Publish to "x"`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let action = match () {
            () if lower.starts_with("permissions violation for publish") => Action::Publish,
            () if lower.starts_with("permissions violation for subscription") => Action::Subscribe,
            () => return None,
        };
        let subject = text.split('"').nth(1)?.to_owned();
        Some(Self { action, subject })
    }
}

/// The denials of a connection, as they come. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Denials {
    seen: Arc<watch::Sender<Vec<Denial>>>,
}

impl Default for Denials {
    fn default() -> Self {
        Self { seen: Arc::new(watch::Sender::new(Vec::new())) }
    }
}

impl Denials {
    /// Remembers one.
    pub(crate) fn add(&self, denial: Denial) {
        self.seen.send_modify(|seen| {
            seen.retain(|earlier| *earlier != denial);
            if seen.len() == MAX {
                seen.remove(0);
            }
            seen.push(denial);
        });
    }

    /// Waits for the first.
    pub async fn first(&self) -> Denial {
        let mut seen = self.seen.subscribe();
        let first = seen.wait_for(|seen| !seen.is_empty()).await.ok().and_then(|seen| seen.first().cloned());
        match first {
            Some(first) => first,
            None => std::future::pending().await,
        }
    }

    /// Those that were told so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<Denial> {
        self.seen.borrow().clone()
    }

    /// Takes out one that fits, if there is any: what was denied once may be permitted when it is tried again.
    #[must_use]
    pub fn take(&self, fits: impl Fn(&Denial) -> bool) -> Option<Denial> {
        let mut taken = None;
        self.seen.send_if_modified(|seen| {
            taken = seen.iter().position(&fits).map(|at| seen.remove(at));
            taken.is_some()
        });
        taken
    }

    /// Waits for one that fits and that is told from now on, and takes it out.
    pub async fn next(&self, fits: impl Fn(&Denial) -> bool) -> Denial {
        // Nobody else is woken where there is nothing to forget.
        self.seen.send_if_modified(|seen| {
            let before = seen.len();
            seen.retain(|denial| !fits(denial));
            seen.len() < before
        });
        let mut seen = self.seen.subscribe();
        loop {
            if let Some(denial) = self.take(&fits) {
                return denial;
            }
            if seen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when the server has told of every denial of what was asked on the connection before.
    pub async fn settle(&self, client: &Client) {
        // The client has a task of its own that tells of denials, and it may be behind the one that gives us our message. It has had its
        // turn when we went to the server and back once more.
        self.go_and_return(client).await;
        self.go_and_return(client).await;
    }

    async fn go_and_return(&self, client: &Client) {
        // It comes back as a message or is denied itself; either is told after all that came before.
        let fence = format!("{}.{FENCE}", client.new_inbox());
        let (Ok(mut back), mut seen) = (client.subscribe(fence.clone()).await, self.seen.subscribe()) else { return };
        if client.publish(fence.clone(), "".into()).await.is_err() {
            return;
        }
        let denied = seen.wait_for(|seen| seen.iter().any(|denial| denial.subject == fence));
        let told = async {
            tokio::select! {
                _message = back.next() => {}
                _denied = denied => {}
            }
        };
        tokio::time::timeout(SETTLE, told).await.ok();
        self.seen.send_modify(|seen| seen.retain(|denial| denial.subject != fence));
    }
}

/// Returns when the server has dealt with all that was sent before, and its answers have come. Never, where the user may not hear its inbox.
pub(crate) async fn fence(client: &Client) {
    let fence = format!("{}.{FENCE}", client.new_inbox());
    let Ok(mut back) = client.subscribe(fence.clone()).await else { return };
    if client.publish(fence, "".into()).await.is_ok() {
        back.next().await;
    }
}

/// Whether it is only what [`Denials::settle`] tries.
#[must_use]
pub fn is_fence(denial: &Denial) -> bool {
    denial.subject.ends_with(FENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_server_says_is_read_and_told_with_its_subject() {
        let denial = Denial::parse(r#"Permissions Violation for Publish to "$NEX.PING""#).unwrap();
        assert_eq!(denial, Denial { action: Action::Publish, subject: "$NEX.PING".into() });
        assert!(denial.to_string().starts_with(r#"denied: this user may not publish to "$NEX.PING"; next: "#), "{denial}");
        let queue = Denial::parse(r#"Permissions Violation for Subscription to "fn.x" using queue "q""#).unwrap();
        assert_eq!(queue, Denial { action: Action::Subscribe, subject: "fn.x".into() });
        assert_eq!(Denial::parse("Stale Connection"), None);
        let denials = Denials::default();
        denials.add(queue.clone());
        denials.add(denial);
        assert_eq!(denials.first().await, queue);
        assert_eq!(denials.take(|denial| denial.subject == "other"), None);
        assert_eq!(denials.take(|denial| denial.subject == "fn.x"), Some(queue));
        assert_eq!(denials.take(|denial| denial.subject == "fn.x"), None);
        let next = denials.next(|denial| denial.subject == "$NEX.PING");
        let again = async { denials.add(Denial { action: Action::Publish, subject: "$NEX.PING".into() }) };
        assert_eq!(futures::join!(next, again).0.action, Action::Publish, "it waits for a new one");
    }
}
