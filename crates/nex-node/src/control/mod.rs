//! The control API of Nex 0.2.7, as a NATS micro service: every request becomes a task and gets exactly one answer.
//!
//! Questions, stops, deploys, replays and what is read from the disk have a lane each ([`lanes`]): a deploy may take seconds, and nothing waits
//! behind it.

mod body;
mod deploy;
mod endpoints;
mod failure;
mod fit;
mod lanes;
mod micro;
mod queries;
mod repeats;
mod replay;
mod settle;
mod stop;
mod token;

use std::iter;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, Message, Subscriber};
use futures::FutureExt as _;
use futures::stream::{SelectAll, Stream, StreamExt as _};
use nex_process::{Deadline, TaskScope};
use nex_protocol::envelope::{self, ErrorCode, Failure, kind};
use nex_protocol::reply::ReplySubject;
use nex_protocol::subject::{self, Control, Discovery, ServiceQuestion};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::control::deploy::Deploys;
use crate::control::endpoints::Endpoints;
use crate::control::lanes::Lane;
use crate::control::micro::Service;
use crate::control::queries::Queries;
use crate::control::replay::{Replays, Seen};
use crate::control::stop::Stops;
use crate::status::{NodeStatus, VERSION};

/// Largest request body looked at, bytes.
const BODY_BYTES: usize = 2 * 1024 * 1024;
/// Requests in each lane, and their bytes. A deploy waits in its lane until there is room for it to be worked on.
const QUESTIONS: (usize, usize) = (256, 8 * 1024 * 1024);
const STOPS: (usize, usize) = (256, 8 * 1024 * 1024);
const HISTORIES: (usize, usize) = (64, 1024 * 1024);
const REPLAYS: (usize, usize) = (64, 8 * 1024 * 1024);
const DEPLOYS: (usize, usize) = (1_024, 32 * 1024 * 1024);
/// Requests that are told at once that their lane is full; those beyond get no answer.
const REFUSALS: usize = 64;

/// The answer to a request: an envelope's data, silence, or why not.
type Answer<T> = Result<Option<T>, Failure>;

/// The running control API.
pub struct ControlApi {
    subscriptions: CancellationToken,
    lanes: TaskScope,
    api: Arc<Api>,
}

impl std::fmt::Debug for ControlApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlApi").finish_non_exhaustive()
    }
}

/// What all requests are answered with.
struct Api {
    nats: Client,
    deploy_timeout: Duration,
    endpoints: Endpoints,
    queries: Queries,
    stops: Stops,
    deploys: Deploys,
    replays: Replays,
    refusals: Lane,
    handlers: TaskScope,
}

impl ControlApi {
    /// Subscribes and begins to answer.
    ///
    /// # Errors
    /// When the connection does not take a subscription.
    pub(crate) async fn start(
        nats: &Client,
        status: &Arc<NodeStatus>,
        admission: &Arc<Admission>,
    ) -> Result<Self, async_nats::Error> {
        let node = &admission.identity.node;
        let endpoints = Endpoints::new(node, &admission.identity.nexus, VERSION);
        let (mut questions, mut histories) = (SelectAll::new(), SelectAll::new());
        let (mut stops, mut deploys, mut replays) = (SelectAll::new(), SelectAll::new(), SelectAll::new());
        for (index, endpoint) in endpoints.all().iter().enumerate() {
            // Every node answers for itself: the queue group is the node's own.
            let subscription = nats.queue_subscribe(endpoint.subject.clone(), node.to_string()).await?;
            let lane = match Control::parse(&endpoint.subject) {
                Some(Control::Deploy { .. }) => &mut deploys,
                Some(Control::Replay { .. }) => &mut replays,
                _ if endpoint.subject.starts_with(subject::HISTORY) => &mut histories,
                Some(Control::Stop { .. } | Control::LameDuck) => &mut stops,
                _ => &mut questions,
            };
            lane.push(Numbered { subscription, index: Some(index) });
        }
        for subject in Discovery::SUBSCRIPTIONS {
            questions.push(Numbered { subscription: nats.subscribe(subject).await?, index: None });
        }
        nats.flush().await?;
        let (subscriptions, lanes) = (CancellationToken::new(), TaskScope::new("control"));
        let api = Arc::new(Api::new(nats, status, admission, endpoints));
        for (name, lane, (most, bytes)) in [
            ("questions", questions, QUESTIONS),
            ("histories", histories, HISTORIES),
            ("stops", stops, STOPS),
            ("deploys", deploys, DEPLOYS),
            ("replays", replays, REPLAYS),
        ] {
            let (api, stop) = (Arc::clone(&api), subscriptions.clone());
            lanes.spawn(name, async move { serve(lane, Lane::new(most, bytes), &api, &stop).await });
        }
        Ok(Self { subscriptions, lanes, api })
    }

    /// Takes no more requests, answers those under way.
    pub async fn stop(&self, grace: Duration) {
        self.subscriptions.cancel();
        self.lanes.shutdown(grace).await;
        self.api.handlers.shutdown(grace).await;
    }
}

/// A subscription and the index of its endpoint; discovery has none.
struct Numbered {
    subscription: Subscriber,
    index: Option<usize>,
}

impl Stream for Numbered {
    type Item = (Option<usize>, Message);

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let index = self.index;
        self.subscription.poll_next_unpin(context).map(|message| message.map(|message| (index, message)))
    }
}

/// Takes requests into their lane as they come. This never waits for work, so that nothing piles up in the connection.
async fn serve(mut requests: SelectAll<Numbered>, lane: Lane, api: &Arc<Api>, stop: &CancellationToken) {
    while let Some(Some((index, message))) = stop.run_until_cancelled(requests.next()).await {
        let control = Control::parse(message.subject.as_str());
        let is_too_large = message.payload.len() > BODY_BYTES;
        let ticket = match is_too_large {
            true => None,
            false => lane.enter(message.payload.len(), control.as_ref().and_then(Control::namespace)),
        };
        let (this, by) = (Arc::clone(api), Deadline::after(api.deploy_timeout));
        match ticket {
            Some(ticket) => api.handlers.spawn("request", async move {
                Box::pin(this.route(index, control, &message, by)).await;
                drop(ticket);
            }),
            None => {
                let Some(ticket) = api.refusals.enter(message.payload.len(), None) else { continue };
                let why = if is_too_large {
                    Failure::new(ErrorCode::BadRequest, format!("the request is larger than {BODY_BYTES} bytes"))
                } else {
                    Failure::new(ErrorCode::Unavailable, "the node has too many requests of this kind under way; try again")
                };
                api.handlers.spawn("refusal", async move {
                    let kind = kind_of(control.as_ref());
                    this.answer::<()>(index, &message, kind, async { Err(why) }).await;
                    drop(ticket);
                });
            }
        }
    }
}

fn kind_of(control: Option<&Control>) -> &'static str {
    match control {
        Some(Control::Auction) => kind::AUCTION,
        Some(Control::Ping | Control::WorkloadPing { .. }) | None => kind::PING,
        Some(Control::Info { .. }) => kind::INFO,
        Some(Control::Deploy { .. }) => kind::RUN,
        Some(Control::Stop { .. }) => kind::STOP,
        Some(Control::LameDuck) => kind::LAME_DUCK,
        Some(Control::History { .. }) => kind::HISTORY,
        Some(Control::Replay { .. }) => kind::REPLAY,
    }
}

impl Api {
    fn new(nats: &Client, status: &Arc<NodeStatus>, admission: &Arc<Admission>, endpoints: Endpoints) -> Self {
        let Admission { identity, config, registry, drivers, .. } = &**admission;
        Self {
            nats: nats.clone(),
            deploy_timeout: drivers.timeouts.deploy,
            endpoints,
            queries: Queries {
                identity: Arc::clone(identity),
                config: config.clone(),
                status: Arc::clone(status),
                registry: registry.clone(),
                drivers: Arc::clone(drivers),
            },
            stops: Stops {
                identity: Arc::clone(identity),
                config: config.clone(),
                status: Arc::clone(status),
                registry: registry.clone(),
                journal: drivers.journal.clone(),
                events: drivers.events.clone(),
                admission: Arc::clone(admission),
            },
            replays: Replays {
                identity: Arc::clone(identity),
                registry: registry.clone(),
                drivers: Arc::clone(drivers),
                seen: Seen::default(),
            },
            deploys: Deploys::new(Arc::clone(status), Arc::clone(admission)),
            refusals: Lane::new(REFUSALS, REFUSALS * BODY_BYTES),
            handlers: TaskScope::new("requests"),
        }
    }

    async fn route(&self, index: Option<usize>, control: Option<Control>, message: &Message, by: Deadline) {
        let (queries, body) = (&self.queries, message.payload.as_ref());
        if index.is_none() {
            return self.discover(message).await;
        }
        let kind = kind_of(control.as_ref());
        let Some(control) = control else {
            let text = "Invalid subject for workload deployment";
            let refused = async { Err(Failure::new(ErrorCode::BadRequest, text)) };
            return self.answer::<()>(index, message, kind, refused).await;
        };
        match control {
            Control::Auction => self.answer(index, message, kind, async { Ok(queries.bid(body)) }).await,
            Control::Ping => self.answer(index, message, kind, async { Ok(Some(queries.ping())) }).await,
            Control::WorkloadPing { namespace, workload } => {
                let found = async {
                    let Some(found) = queries.workload_ping(&namespace, workload.as_deref(), body).await else { return Ok(None) };
                    let mut pages = fit::pages(found, self.nats.max_payload());
                    let last = pages.pop();
                    for page in pages {
                        respond(&self.nats, message, envelope::success(kind, &page)).await;
                    }
                    Ok(last)
                };
                self.answer(index, message, kind, found).await;
            }
            Control::Info { namespace } => {
                let info = async { Ok(Some(fit::cut(queries.info(&namespace), self.nats.max_payload()))) };
                self.answer(index, message, kind, info).await;
            }
            Control::Deploy { namespace } => {
                let deployed = Box::pin(self.deploys.deploy(&namespace, body, by)).map(|it| it.map(Some));
                self.answer(index, message, kind, deployed).await;
            }
            Control::Stop { namespace } => {
                let stopped = self.stops.stop(&namespace, body).map(|it| it.map(Some));
                self.answer(index, message, kind, stopped).await;
            }
            Control::History { namespace, kind: what } => {
                self.answer(index, message, kind, queries.history(&namespace, what, body, by).map(|it| it.map(Some))).await;
            }
            Control::Replay { namespace } => {
                let replayed = Box::pin(self.replays.replay(&namespace, body, by)).map(|it| it.map(Some));
                self.answer(index, message, kind, replayed).await;
            }
            Control::LameDuck => {
                self.answer(index, message, kind, self.stops.lame_duck(body).map(|it| Ok(Some(it)))).await;
            }
        }
    }

    async fn discover(&self, message: &Message) {
        let Some(question) = ServiceQuestion::parse(message.subject.as_str()) else { return };
        let workloads = self.queries.registry.all();
        let functions = workloads.iter().filter(|workload| workload.spec.kind.is_function());
        for service in iter::once(self.endpoints.service()).chain(functions.map(|function| Service::of_function(function))) {
            if question.is_for(&service.name, &service.id) {
                let body = serde_json::to_vec(&service.answer(question.what)).unwrap_or_default();
                respond(&self.nats, message, body).await;
            }
        }
    }

    /// The one place that answers: a success, a failure, a panic, or deliberate silence.
    async fn answer<T: Serialize>(
        &self,
        index: Option<usize>,
        message: &Message,
        kind: &str,
        work: impl Future<Output = Answer<T>>,
    ) {
        let began = Instant::now();
        let worked = AssertUnwindSafe(work).catch_unwind().await;
        let is_error = !matches!(worked, Ok(Ok(_)));
        if let Some(endpoint) = index.and_then(|index| self.endpoints.all().get(index)) {
            endpoint.count(began.elapsed(), is_error);
        }
        let body = match worked {
            Ok(Ok(Some(data))) => envelope::success(kind, &data),
            Ok(Ok(None)) => return,
            Ok(Err(failure)) => {
                tracing::debug!(subject = %message.subject, code = ?failure.code, error = %failure, "request refused");
                envelope::failure(kind, &failure)
            }
            Err(_panic) => {
                tracing::error!(subject = %message.subject, "a request hit a bug of this node");
                envelope::failure(kind, &Failure::new(ErrorCode::Internal, "the node failed on this request; its log says more"))
            }
        };
        let most = self.nats.max_payload();
        let body = if body.len() > most {
            tracing::error!(subject = %message.subject, bytes = body.len(), most, "an answer is larger than this NATS takes");
            let text = format!("the answer has {} bytes, more than the {most} that this NATS takes; ask for less", body.len());
            envelope::failure(kind, &Failure::new(ErrorCode::Internal, text))
        } else {
            body
        };
        respond(&self.nats, message, body).await;
    }
}

/// Publishes an answer where an answer may go.
async fn respond(nats: &Client, message: &Message, body: Vec<u8>) {
    let Some(reply) = message.reply.as_deref() else { return };
    let sent = match ReplySubject::parse(reply) {
        Ok(reply) => nats.publish(String::from(reply), body.into()).await,
        Err(forbidden) => return tracing::debug!(subject = %message.subject, %forbidden, "a request is not answered"),
    };
    if let Err(error) = sent {
        tracing::warn!(subject = %message.subject, %error, "a reply could not be sent");
    }
}
