//! What instances ask of `wasi:http/outgoing-handler`, by the host service `http`: it says where they may go and how large they are, as for the
//! `fetch` of JavaScript, and an agent opens no socket.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use nex_engine::Stream;
use nex_protocol::agent::invocation::Headers;
use nex_protocol::host::{HostError, HostRequest, HttpReply, Service};
use tokio::sync::Semaphore;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpHooks};

use crate::held::{Held, Room};
use crate::host::{HostCalls, MAX_BODY};
use crate::pipe::{Log, Pipe};

/// Most bytes of a set of headers. An instance has many of them, and they are not in its memory.
const MAX_FIELDS: usize = 32 * 1024;
/// Most requests of a call that are under way at once; others wait.
const MAX_CONCURRENT: usize = 4;
/// Most bytes of one write to a body. Two of them wait for each body that nobody reads.
const MAX_WRITE: usize = 16 * 1024;

/// What an instance has for HTTP.
pub(crate) struct Http {
    pub(crate) context: WasiHttpCtx,
    pub(crate) outgoing: Outgoing,
}

impl Http {
    pub(crate) fn new(host: HostCalls, log: Pipe<Log>, room: Room) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(MAX_FIELDS);
        let outgoing = Outgoing { host, log, turns: Arc::new(Semaphore::new(MAX_CONCURRENT)), room };
        Self { context, outgoing }
    }
}

/// The way out of one instance.
#[derive(Clone)]
pub(crate) struct Outgoing {
    host: HostCalls,
    log: Pipe<Log>,
    turns: Arc<Semaphore>,
    room: Room,
}

/// What is sent, to its end.
type Sent<T> = Box<dyn Future<Output = Result<T, Error>> + Send>;

impl WasiHttpHooks for Outgoing {
    /// The host service makes it from the URL.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Sent<()>,
    ) -> Sent<(Response<WasiBody>, Sent<()>)> {
        let way = self.clone();
        // It is counted when it is made, not when the instance waits for it.
        let counted = self.host.count();
        Box::new(async move {
            counted.map_err(|_over| Error::HttpRequestDenied)?;
            let response = way.send(request, options.unwrap_or_default()).await?;
            let done: Sent<()> = Box::new(std::future::ready(Ok(())));
            Ok((response, done))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        MAX_WRITE
    }
}

impl Outgoing {
    async fn send(&self, request: Request<WasiBody>, options: RequestOptions) -> Result<Response<WasiBody>, Error> {
        let (head, body) = request.into_parts();
        let method = method(&head.method)?;
        let body = self.read(body).await?;
        if body.len() > 0 && !matches!(method, "post" | "put" | "patch") {
            return Err(internal(format!("the host sends no body with a {} request", head.method)));
        }
        let request = HostRequest {
            service: Service::Http,
            method: method.to_owned(),
            target: head.uri.to_string(),
            body: body.into_bytes(),
            headers: text_of(&head.headers)?,
        };
        let asked = async {
            let _turn = self.turns.acquire().await.map_err(|_closed| Error::ConnectionLimitReached)?;
            self.host.call_counted(request).await.map_err(|error| self.failure(error))
        };
        let answer = match patience(options) {
            Some(limit) => tokio::time::timeout(limit, asked).await.map_err(|_elapsed| Error::HttpResponseTimeout)?,
            None => asked.await,
        }?;
        let (reply, body) = HttpReply::read(&answer).map_err(|error| internal(error.to_string()))?;
        let size = body.len() as u64;
        let body = self.room.hold(body).map_err(|_full| Error::HttpResponseBodySize(Some(size)))?;
        response(reply, body)
    }

    /// All of a body, while the instance writes it.
    async fn read(&self, body: WasiBody) -> Result<Held, Error> {
        let (mut body, mut held) = (Pin::from(Box::new(body)), Held::default());
        while let Some(frame) = body.frame().await {
            // Trailers are not sent.
            let Ok(data) = frame?.into_data() else { continue };
            let size = held.len().saturating_add(data.len());
            let too_large = || Error::HttpRequestBodySize(u64::try_from(size).ok());
            if size > MAX_BODY {
                return Err(too_large());
            }
            self.room.add(&mut held, &data).map_err(|_full| too_large())?;
        }
        Ok(held)
    }

    /// What the instance is told; where that is no text, the text is logged.
    fn failure(&self, error: HostError) -> Error {
        let told = match error.code {
            403 => Error::HttpRequestDenied,
            413 => Error::HttpResponseBodySize(None),
            503 => Error::ConnectionLimitReached,
            504 => Error::HttpResponseTimeout,
            _ => return internal(error.message),
        };
        self.log.lock().line(Stream::Stderr, &format!("wasi:http: {error}"));
        told
    }
}

fn internal(text: String) -> Error {
    Error::InternalError(Some(text))
}

/// The method by its name in the host service.
fn method(method: &Method) -> Result<&'static str, Error> {
    const KNOWN: [(Method, &str); 6] = [
        (Method::GET, "get"),
        (Method::HEAD, "head"),
        (Method::POST, "post"),
        (Method::PUT, "put"),
        (Method::PATCH, "patch"),
        (Method::DELETE, "delete"),
    ];
    let known = KNOWN.into_iter().find(|(known, _)| known == method);
    known.map(|(_, name)| name).ok_or(Error::HttpRequestMethodInvalid)
}

/// How long the instance wants to wait for a response, which comes whole.
fn patience(options: RequestOptions) -> Option<Duration> {
    let RequestOptions { connect_timeout, first_byte_timeout, between_bytes_timeout: _ } = options;
    first_byte_timeout.map(|first| first.saturating_add(connect_timeout.unwrap_or_default()))
}

fn text_of(headers: &HeaderMap) -> Result<Headers, Error> {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = value.to_str().map_err(|_binary| internal(format!("the header {name} is no text")))?;
        Ok((name.as_str().to_owned(), value.to_owned()))
    };
    headers.iter().map(text).collect()
}

fn response(reply: HttpReply, body: Held) -> Result<Response<WasiBody>, Error> {
    let mut headers = HeaderMap::new();
    for (name, values) in reply.headers {
        for value in values {
            // What is no header is left out: the host service has read it as text.
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
                headers.try_append(name, value).map_err(|_full| Error::HttpResponseHeaderSectionSize(None))?;
            }
        }
    }
    let body: Full<Bytes> = Full::new(body.into_bytes());
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(reply.status).map_err(|_none| Error::HttpProtocolError)?;
    *response.headers_mut() = headers;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_the_host_service_does_not_make_are_refused() {
        assert_eq!(method(&Method::PATCH).unwrap(), "patch");
        for other in [Method::OPTIONS, Method::CONNECT, Method::TRACE, Method::from_bytes(b"get").unwrap()] {
            assert!(matches!(method(&other), Err(Error::HttpRequestMethodInvalid)), "{other}");
        }
    }

    #[test]
    fn an_instance_waits_for_the_first_byte_after_it_is_connected() {
        let second = Some(Duration::from_secs(1));
        let of = |connect_timeout, first_byte_timeout| {
            patience(RequestOptions { connect_timeout, first_byte_timeout, between_bytes_timeout: None })
        };
        assert_eq!((of(None, second), of(second, None)), (second, None));
        assert_eq!(of(second, second), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_response_without_a_status_is_none() {
        let body = || Held::default();
        assert!(response(HttpReply::new(99, Default::default(), b""), body()).is_err());
        assert_eq!(response(HttpReply::new(204, Default::default(), b""), body()).unwrap().status(), 204);
    }
}
