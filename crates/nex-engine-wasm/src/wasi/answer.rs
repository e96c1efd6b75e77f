//! The response of a handler of requests, taken while the handler runs: a write of it waits until the one before the last was taken.
//!
//! It is whole, unless whoever asked takes it piece by piece and there is a reason to: it is not there a moment after its head, or it is
//! large. Until then a failure is one of the whole call.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::response::Parts;
use http_body_util::BodyExt as _;
use nex_engine::{Response, Streaming};
use nex_protocol::agent::invocation::{Headers, canonical_name};
use tokio::sync::oneshot::Receiver;
use tokio::time::{Instant, timeout_at};
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::http::{STATUSES, Unanswered};
use crate::pipe::{Pipe, Reply, Sink as _};

/// Time after the head in which a response is kept together: most are all there by then, and one message is the shortest way.
const KEPT_TOGETHER: Duration = Duration::from_millis(20);
/// Bytes that are kept together.
const LARGE: usize = 128 * 1024;

type Given = Result<http::Response<HyperOutgoingBody>, ErrorCode>;

/// A response under way.
pub(super) struct Answer<'a> {
    reply: &'a Pipe<Reply>,
    streaming: Option<&'a Streaming>,
    head: OnceLock<Parts>,
    /// What is kept together, as long as it is.
    kept: Mutex<Vec<Bytes>>,
    /// Whether what holds it up is whoever takes it.
    is_sending: AtomicBool,
}

impl<'a> Answer<'a> {
    pub(super) fn new(reply: &'a Pipe<Reply>, streaming: Option<&'a Streaming>) -> Self {
        Self { reply, streaming, head: OnceLock::new(), kept: Mutex::default(), is_sending: AtomicBool::new(false) }
    }

    /// Takes what a handler writes while it runs. A body that it has neither finished nor dropped at its end, ends there.
    pub(super) async fn beside<E>(
        &self,
        handled: impl Future<Output = Result<(), E>>,
        receiver: Receiver<Given>,
    ) -> Result<Result<Response, Unanswered>, E> {
        let (mut handled, mut taking, mut taken) = (pin!(handled), pin!(self.take(receiver)), None);
        poll_fn(|context| {
            if taken.is_none()
                && let Poll::Ready(all) = taking.as_mut().poll(context)
            {
                taken = Some(all);
            }
            handled.as_mut().poll(context)
        })
        .await?;
        // It writes nothing any more, so what is not there now never comes; and tokio's budget of a task must not hide it.
        let rest = poll_fn(|context| {
            if taken.is_none() {
                match taking.as_mut().poll(context) {
                    Poll::Ready(all) => taken = Some(all),
                    Poll::Pending if self.is_sending.load(Ordering::Relaxed) => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            Poll::Ready(())
        });
        tokio::task::coop::unconstrained(rest).await;
        self.kept().drain(..).for_each(|piece| self.keep(piece));
        Ok(taken.unwrap_or(Ok(())).and_then(|()| self.head.get().ok_or(Unanswered::NeverSet).and_then(response)))
    }

    async fn take(&self, receiver: Receiver<Given>) -> Result<(), Unanswered> {
        let given = receiver.await.map_err(|_dropped| Unanswered::NeverSet)?.map_err(Unanswered::Error)?;
        let (head, body) = given.into_parts();
        let (head, mut body) = (self.head.get_or_init(|| head), pin!(body));
        let (mut begun, until) = (None, Instant::now() + KEPT_TOGETHER);
        loop {
            let frame = match self.streaming.filter(|_| begun.is_none()) {
                None => body.frame().await,
                Some(streaming) => match timeout_at(until, body.frame()).await {
                    Ok(frame) => frame,
                    Err(_elapsed) => {
                        begun = Some(self.begin(streaming, head).await?);
                        continue;
                    }
                },
            };
            // Trailers are not sent.
            let piece = match frame {
                None => break,
                Some(frame) => frame.map_err(|_given_up| Unanswered::Broken)?.into_data().unwrap_or_default(),
            };
            match (begun, self.streaming) {
                (Some(streaming), _) => self.send(streaming, &piece).await?,
                (None, Some(streaming)) => {
                    self.kept().push(piece);
                    if self.kept().iter().map(Bytes::len).sum::<usize>() > LARGE {
                        begun = Some(self.begin(streaming, head).await?);
                    }
                }
                (None, None) => self.keep(piece),
            }
        }
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Bytes>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, piece: Bytes) {
        self.reply.lock().take(piece);
    }

    /// Sends the head, and what was kept.
    async fn begin<'s>(&self, streaming: &'s Streaming, head: &Parts) -> Result<&'s Streaming, Unanswered> {
        streaming.begin(response(head)?.http_reply(Bytes::new()).headers)?;
        let kept = std::mem::take(&mut *self.kept());
        for piece in kept {
            self.send(streaming, &piece).await?;
        }
        Ok(streaming)
    }

    async fn send(&self, streaming: &Streaming, piece: &[u8]) -> Result<(), Unanswered> {
        self.is_sending.store(true, Ordering::Relaxed);
        let sent = streaming.send(piece).await;
        self.is_sending.store(false, Ordering::Relaxed);
        Ok(sent?)
    }
}

/// A head as it is sent.
fn response(head: &Parts) -> Result<Response, Unanswered> {
    let status = head.status.as_u16();
    if !STATUSES.contains(&status) {
        return Err(Unanswered::Status(status));
    }
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Headers = head.headers.iter().map(|(name, value)| (canonical_name(name.as_str()), text(value))).collect();
    Ok(Response::new(status, String::new(), headers)?)
}
