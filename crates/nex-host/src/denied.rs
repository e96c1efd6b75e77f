//! What NATS does not permit a call: the server tells of it apart from what was asked, and the call would wait in vain.

use bytes::Bytes;
use nex_bus::denials::{Action, Denial, is_fence};
use nex_protocol::host::HostError;

use crate::bucket::Bucket;
use crate::call::CallContext;
use crate::error::refuse;

/// What a call has to do with.
pub(crate) enum Touched<'c> {
    /// Its workload's bucket.
    Bucket(Bucket<'c>),
    /// A subject.
    Subject(&'c str),
}

impl Touched<'_> {
    fn concerns(&self, denial: &Denial) -> bool {
        // Nothing but inboxes is subscribed here, and all calls need them.
        (denial.action == Action::Subscribe && !is_fence(denial))
            || match self {
                Self::Subject(subject) => denial.subject == *subject,
                Self::Bucket(bucket) => {
                    let stream = bucket.stream();
                    let tokens = || denial.subject.split('.');
                    let is_its_key = matches!(tokens().next(), Some("$KV" | "$O")) && tokens().nth(1) == Some(&bucket.name);
                    is_its_key || tokens().any(|token| token == stream) || denial.subject == "$JS.API.INFO"
                }
            }
    }
}

/// Does a call; ends as soon as the server says that it is not permitted, and says to the function and to the log what is not.
pub(crate) async fn or_done(
    context: &CallContext,
    what: &str,
    touched: &Touched<'_>,
    work: impl Future<Output = Result<Bytes, HostError>>,
) -> Result<Bytes, HostError> {
    tokio::select! {
        // A message that was published and refused is refused.
        biased;
        denial = context.denials.next(|denial| touched.concerns(denial)) => {
            tracing::warn!(namespace = %context.namespace, workload = %context.workload, "{what}: {denial}");
            Err(refuse(403, format!("{what}: {denial}")))
        }
        done = work => done,
    }
}
