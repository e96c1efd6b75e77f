//! The control API of Nex 0.2.7, as a NATS micro service: every request becomes a task and gets exactly one answer.

mod deploy;
mod failure;
mod queries;
mod stop;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_nats::service::{Request, Service, ServiceExt as _};
use futures::stream::{SelectAll, StreamExt as _};
use futures::{FutureExt as _, Stream};
use nex_process::TaskScope;
use nex_protocol::envelope::{self, ErrorCode, Failure, kind};
use nex_protocol::subject::Control;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::shared::Shared;

/// Requests worked on at once; more wait their turn on the connection.
const AT_ONCE: usize = 256;
/// Largest request body looked at, bytes.
const BODY_BYTES: usize = 2 * 1024 * 1024;

/// The answer to a request: an envelope's data, silence, or why not.
type Answer<T> = Result<Option<T>, Failure>;

/// The running control API.
pub struct ControlApi {
    service: Service,
    requests: TaskScope,
}

impl std::fmt::Debug for ControlApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlApi").finish_non_exhaustive()
    }
}

impl ControlApi {
    /// Registers the service and begins to answer.
    ///
    /// # Errors
    /// When the connection does not take a subscription.
    pub async fn start(shared: &Arc<Shared>) -> Result<Self, async_nats::Error> {
        let node = &shared.identity.node;
        let metadata = HashMap::from([("node".to_owned(), node.to_string()), ("nexus".to_owned(), shared.nexus.clone())]);
        let builder = shared.nats.service_builder().description("NATS execution engine: node control API").metadata(metadata);
        // Every node answers for itself: the queue group is the node's own.
        let service = builder.queue_group(node.to_string()).start("nex", shared.version).await?;
        let mut endpoints = SelectAll::new();
        for subject in Control::subscriptions(node) {
            let name: String = subject.trim_start_matches("$NEX.").replace(['*', '>', '.'], "-").replace(node.as_str(), "node");
            endpoints.push(service.endpoint_builder().name(name).add(subject).await?);
        }
        shared.nats.flush().await?;
        let requests = TaskScope::new("control");
        let handlers = requests.child("requests");
        requests.spawn("control", serve(endpoints, Arc::clone(shared), handlers));
        Ok(Self { service, requests })
    }

    /// Takes no more requests, answers those under way.
    pub async fn stop(self, grace: std::time::Duration) {
        if let Err(error) = self.service.stop().await {
            tracing::debug!(%error, "the control service did not unsubscribe");
        }
        self.requests.shutdown(grace).await;
    }
}

async fn serve(mut endpoints: impl Stream<Item = Request> + Unpin, shared: Arc<Shared>, handlers: TaskScope) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(request) = endpoints.next().await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let shared = Arc::clone(&shared);
        handlers.spawn("request", async move {
            Box::pin(route(&shared, &request)).await;
            drop(permit);
        });
    }
}

async fn route(shared: &Arc<Shared>, request: &Request) {
    let body = request.message.payload.as_ref();
    let Some(control) = Control::parse(request.message.subject.as_str()) else {
        let text = "Invalid subject for workload deployment";
        return answer::<()>(request, kind::PING, async { Err(Failure::new(ErrorCode::BadRequest, text)) }).await;
    };
    match control {
        Control::Auction => answer(request, kind::AUCTION, async { Ok(queries::bid(shared, body)) }).await,
        Control::Ping => answer(request, kind::PING, async { Ok(Some(queries::ping(shared))) }).await,
        Control::WorkloadPing { namespace, workload } => {
            answer(request, kind::PING, async { Ok(queries::workload_ping(shared, &namespace, workload.as_deref())) }).await;
        }
        Control::Info { namespace } => answer(request, kind::INFO, async { Ok(Some(queries::info(shared, &namespace))) }).await,
        Control::Deploy { namespace } => {
            answer(request, kind::RUN, deploy::deploy(shared, &namespace, body).map(|it| it.map(Some))).await;
        }
        Control::Stop { namespace } => {
            answer(request, kind::STOP, stop::stop(shared, &namespace, body).map(|it| it.map(Some))).await;
        }
        Control::LameDuck => answer(request, kind::LAME_DUCK, stop::lame_duck(shared).map(|it| Ok(Some(it)))).await,
    }
}

/// The one place that answers: a success, a failure, a panic, or deliberate silence.
async fn answer<T: Serialize>(request: &Request, kind: &str, work: impl Future<Output = Answer<T>>) {
    let body = if request.message.payload.len() > BODY_BYTES {
        envelope::failure(kind, &Failure::new(ErrorCode::BadRequest, format!("the request is larger than {BODY_BYTES} bytes")))
    } else {
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(Ok(Some(data))) => envelope::success(kind, &data),
            Ok(Ok(None)) => return,
            Ok(Err(failure)) => {
                tracing::debug!(subject = %request.message.subject, code = ?failure.code, error = %failure, "request refused");
                envelope::failure(kind, &failure)
            }
            Err(_panic) => {
                tracing::error!(subject = %request.message.subject, "a request hit a bug of this node");
                envelope::failure(kind, &Failure::new(ErrorCode::Internal, "the node failed on this request; its log says more"))
            }
        }
    };
    if request.message.reply.is_some()
        && let Err(error) = request.respond(Ok(body.into())).await
    {
        tracing::warn!(subject = %request.message.subject, %error, "a reply could not be sent");
    }
}

/// Reads a body; `null` and what is not an object are malformed.
fn parse<T: serde::de::DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, Failure> {
    let bad = |why: String| Failure::new(ErrorCode::BadRequest, format!("Unable to deserialize {what} request: {why}"));
    // A decoder of structs would take an array too, member by member.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(bad("expected an object, found an array".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| bad(error.to_string()))
}
