//! `wasi:http`: a component that exports `incoming-handler` is called with requests. A call is one whatever triggered it, and the response
//! becomes its reply. What the component asks of others is in `outgoing`.

use std::ops::RangeInclusive;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use nex_engine::{Call, CallError, NotSent, Response, Streaming};
use nex_protocol::agent::invocation::{HTTP_METHOD, HTTP_PATH, HTTP_SCHEME};
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Linker;
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use super::answer::Answer;
use crate::pipe::{Pipe, Reply};
use crate::state::State;

pub(crate) use wasmtime_wasi_http::p2::bindings::ProxyPre;

/// The interface that a component exports to be called with requests, in any 0.2.
pub(crate) const HANDLER: &str = "wasi:http/incoming-handler@0.2.0";
/// The scheme of a call that did not come by HTTP: its subject is the host.
const NATS: &str = "nats";
/// Statuses that a response has at its end.
pub(super) const STATUSES: RangeInclusive<u16> = 200..=599;

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let Self { wasi, http, .. } = self;
        WasiHttpCtxView { hooks: &mut http.outgoing, table: wasi.ctx().table, ctx: &mut http.context }
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

/// A call as a request.
pub(crate) struct Asked {
    request: Request<Full<Bytes>>,
    scheme: Scheme,
    /// Whether it came by HTTP, so that whoever asked gets the status.
    pub(crate) is_http: bool,
}

/// Why an instance has not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("the handler returned without a response: it has to call response-outparam.set")]
    NeverSet,
    #[error("the handler answered with an error: {0}")]
    Error(ErrorCode),
    #[error("the handler gave up the body of its response: it has to call outgoing-body.finish")]
    Broken,
    #[error("the handler answered with the status {0}; a response has one of 200 to 599")]
    Status(u16),
    #[error(transparent)]
    Headers(#[from] nex_engine::TooManyHeaders),
    #[error(transparent)]
    NotSent(#[from] NotSent),
}

/// Whether a message says that it stands for a request.
pub(crate) fn is_request(call: &Call) -> bool {
    call.headers.iter().any(|(name, _)| is_of_line(name))
}

/// Whether a header says what is asked, and is no header of the request.
fn is_of_line(name: &str) -> bool {
    [HTTP_METHOD, HTTP_PATH, HTTP_SCHEME].iter().any(|own| own.eq_ignore_ascii_case(name))
}

impl Asked {
    /// Reads it from a call.
    ///
    /// # Errors
    /// [`CallError::Refused`] if its headers say what is no request.
    pub(crate) fn of(call: &Call) -> Result<Self, CallError> {
        let bad =
            |header: &str, what: &str| CallError::Refused { code: 400, message: format!("the header {header} is no {what}") };
        let get = |wanted: &str| {
            call.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str())
        };
        let method = get(HTTP_METHOD).map(str::to_ascii_uppercase);
        let method =
            Method::from_bytes(method.as_deref().unwrap_or("POST").as_bytes()).map_err(|_none| bad(HTTP_METHOD, "method"))?;
        let scheme = get(HTTP_SCHEME).filter(|scheme| matches!(*scheme, "http" | "https"));
        let headers = headers(call)?;
        let host = match scheme {
            Some(_) => headers.get(header::HOST).cloned().filter(|host| host.to_str().is_ok()),
            None => HeaderValue::from_str(&percent_encoded(&call.subject)).ok(),
        };
        let mut request = Request::new(Full::new(call.payload.clone()));
        *request.method_mut() = method;
        *request.uri_mut() = path(get(HTTP_PATH).unwrap_or("/")).ok_or_else(|| bad(HTTP_PATH, "path"))?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
        let is_http = scheme.is_some();
        let scheme = match scheme {
            Some("https") => Scheme::Https,
            Some(_) => Scheme::Http,
            None => Scheme::Other(NATS.to_owned()),
        };
        Ok(Self { request, scheme, is_http })
    }
}

fn path(text: &str) -> Option<Uri> {
    let text = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
    PathAndQuery::from_maybe_shared(Bytes::from(text)).ok().map(Uri::from)
}

/// The headers of a message as those of a request; what HTTP does not allow is not passed on.
fn headers(call: &Call) -> Result<HeaderMap, CallError> {
    let mut headers = HeaderMap::new();
    for (name, value) in call.headers.iter().filter(|(name, _)| !is_of_line(name)) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            let too_many = |_full| CallError::Refused { code: 431, message: "the message has too many headers".to_owned() };
            headers.try_append(name, value).map_err(too_many)?;
        }
    }
    // Whatever a caller says, it is the payload's.
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(call.payload.len()));
    Ok(headers)
}

/// A subject as a host, as `encodeURIComponent` has it in JavaScript.
fn percent_encoded(subject: &str) -> String {
    let mut text = String::with_capacity(subject.len());
    for byte in subject.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')' => {
                text.push(char::from(byte));
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

/// Calls a handler; the body of its response is added to the reply, and the rest is given back. Where it is sent piece by piece, what is
/// given back is only how that went.
pub(crate) async fn serve(
    store: &mut Store<State>,
    handler: &ProxyPre<State>,
    asked: Asked,
    (reply, streaming): (&Pipe<Reply>, Option<&Streaming>),
) -> wasmtime::Result<Response> {
    let Asked { request, scheme, is_http } = asked;
    let proxy = handler.instantiate_async(&mut *store).await?;
    let (sender, receiver) = oneshot::channel();
    let request = store.data_mut().http().new_incoming_request(scheme, request)?;
    let out = store.data_mut().http().new_response_outparam(sender)?;
    let answer = Answer::new(reply, streaming.filter(|_| is_http));
    let handled = proxy.wasi_http_incoming_handler().call_handle(&mut *store, request, out);
    answer.beside(handled, receiver).await?.map_err(wasmtime::Error::from)
}
