//! One request and its response.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, RequestErrorKind};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use nex_bus::service_error;
use nex_bus::streaming::Puller;
use nex_process::TaskScope;
use nex_protocol::agent::streaming::{HTTP_STREAM, Word};
use nex_protocol::trigger::http::{NoSubject, request_subject};

use crate::config::HttpConfig;
use crate::headers::{Refused, of_reply, of_request};
use crate::pieces::{self, Pieces};

/// Longest time until a body has arrived.
const BODY: Duration = Duration::from_secs(30);

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) nats: Client,
    pub(crate) config: HttpConfig,
    /// What takes the pieces of responses.
    pub(crate) pieces: TaskScope,
}

/// A response, all there or piece by piece.
pub(crate) type Answer = Response<Either<Full<Bytes>, Pieces>>;

impl Exchange {
    /// Answers a request; it is answered whatever happens.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>, client: SocketAddr) -> Answer {
        let answered = self.call(request, client).await;
        answered.unwrap_or_else(|Refused(status, why)| text(status, why.into()))
    }

    async fn call(&self, request: Request<Incoming>, client: SocketAddr) -> Result<Answer, Refused> {
        let (head, body) = request.into_parts();
        if head.method == Method::CONNECT || head.headers.contains_key(UPGRADE) {
            let why = "functions answer requests; connections are not upgraded, so there are no WebSockets here";
            return Err(Refused(StatusCode::NOT_IMPLEMENTED, why));
        }
        let host = head.uri.host().or_else(|| head.headers.get(HOST).and_then(|host| host.to_str().ok())).unwrap_or_default();
        let namespace = self.config.namespace_of(host);
        let subject = request_subject(namespace, head.method.as_str(), head.uri.path()).map_err(|why| match why {
            NoSubject::Method => Refused(StatusCode::NOT_IMPLEMENTED, "there is no such method"),
            NoSubject::Path => Refused(StatusCode::BAD_REQUEST, "the path has a part that is '.' or '..', or is none"),
            NoSubject::TooLong => Refused(StatusCode::URI_TOO_LONG, "the path is too long"),
        })?;
        let scheme = if self.config.tls.is_some() { "https" } else { "http" };
        let mut headers = of_request(head.method.as_str(), &head.uri, &head.headers, (scheme, client))?;
        headers.insert(HTTP_STREAM, Word::Pull.as_str());
        let payload = self.body(body).await?;
        let message = async_nats::Request::new().payload(payload).headers(headers).timeout(Some(self.config.timeout));
        let reply = self.nats.send_request(subject, message).await.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Refused(StatusCode::NOT_FOUND, "no function serves this"),
            RequestErrorKind::TimedOut => Refused(StatusCode::GATEWAY_TIMEOUT, "the function did not answer in time"),
            _ => Refused(StatusCode::SERVICE_UNAVAILABLE, "NATS is not reached; try again"),
        })?;
        if let Some((code, why)) = service_error::read(&reply) {
            let status = StatusCode::from_u16(code).ok().filter(|status| status.as_u16() >= 400);
            let body = if reply.payload.is_empty() { Bytes::from(why) } else { reply.payload };
            return Ok(text(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body));
        }
        let (status, headers) = of_reply(reply.headers.as_ref());
        let mut response = Response::new(match Puller::of(&self.nats, &reply) {
            None => Either::Left(Full::new(reply.payload)),
            Some(puller) => Either::Right(pieces::pull(&self.pieces, puller)),
        });
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    async fn body(&self, body: Incoming) -> Result<Bytes, Refused> {
        let too_large = Refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is over the limit of this listener (max_body_bytes)");
        let limit = self.config.max_body_bytes.min(self.nats.max_payload());
        // What says that it is too large is not read.
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large);
        }
        match tokio::time::timeout(BODY, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large),
            Ok(Err(_broken)) => Err(Refused(StatusCode::BAD_REQUEST, "the body broke off")),
            Err(_elapsed) => Err(Refused(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
        }
    }
}

/// A response that people read.
fn text(status: StatusCode, body: Bytes) -> Answer {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
