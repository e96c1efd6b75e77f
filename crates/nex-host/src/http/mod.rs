//! `http`: requests to the outside.
//!
//! Every hop of a call, redirects included, resolves its host here, and the address that passed is the one connected to: a
//! name that changes its address between check and connection gains nothing. No proxy of the node's environment is used,
//! because behind one there is no address to check.

mod guard;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nex_process::shares::Shares;
use nex_protocol::agent::invocation::{Headers, canonical_name};
use nex_protocol::host::{HostError, HttpReply};
use tokio::sync::Semaphore;
use ureq::Agent;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use ureq::unversioned::transport::DefaultConnector;

use crate::call::Sent;
use crate::config::HttpConfig;
use crate::error::{refuse, unknown_method};
use guard::{Denied, Guard};

/// Most calls under way at once, of all workloads and of each; every call has a thread of its own while it lasts.
const MAX_CALLS: usize = 64;
const MAX_CALLS_OF_ONE: usize = 16;
/// Headers that belong to the connection, or to whoever makes it; a guest's are left out.
const NOT_OF_GUESTS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];
/// Most redirects followed.
const MAX_REDIRECTS: u32 = 5;

#[derive(Debug)]
pub(crate) struct Http {
    agent: Agent,
    calls: Arc<Semaphore>,
    workloads: Shares,
    timeout: Duration,
    max_response: usize,
}

impl Http {
    pub(crate) fn new(config: &HttpConfig) -> Self {
        Self::guarded(config, if config.allow_private { Guard::open() } else { Guard::public_only() })
    }

    fn guarded(config: &HttpConfig, guard: Guard) -> Self {
        let settings = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(MAX_REDIRECTS)
            .timeout_global(Some(config.timeout))
            .user_agent(concat!("nex/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: Agent::with_parts(settings, DefaultConnector::new(), guard),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            workloads: Shares::new(MAX_CALLS_OF_ONE),
            timeout: config.timeout,
            max_response: config.max_response_bytes,
        }
    }

    pub(crate) async fn call(
        &self,
        workload: &str,
        method: &str,
        url: &str,
        Sent { body, headers }: Sent,
    ) -> Result<Bytes, HostError> {
        let (method, has_body) = match method {
            "get" => (Method::GET, false),
            "head" => (Method::HEAD, false),
            "delete" => (Method::DELETE, false),
            "post" => (Method::POST, true),
            "put" => (Method::PUT, true),
            "patch" => (Method::PATCH, true),
            _ => return Err(unknown_method("http", method, "get, post, put, patch, delete and head")),
        };
        let mut request = Request::builder().method(method).uri(parse(url)?);
        if let Some(set) = request.headers_mut() {
            add(set, headers, has_body)?;
        }
        // One workload's slow calls wait for each other, and leave room for those of others.
        let room = async { (self.workloads.take(workload).await, Arc::clone(&self.calls).acquire_owned().await) };
        let Ok((share, Ok(permit))) = tokio::time::timeout(self.timeout, room).await else {
            return Err(refuse(503, "too many http calls of this workload or of this node are under way; try again"));
        };
        let (agent, limit) = (self.agent.clone(), self.max_response);
        let call = tokio::task::spawn_blocking(move || {
            let response = if has_body {
                request.body(body.as_ref()).map_err(ureq::Error::from).and_then(|request| agent.run(request))
            } else {
                request.body(()).map_err(ureq::Error::from).and_then(|request| agent.run(request))
            };
            let reply = response.map_err(|error| failure(&error)).and_then(|response| read(response, limit));
            drop((permit, share));
            reply
        });
        call.await.map_err(|error| refuse(500, format!("the http call ended abnormally: {error}")))?
    }
}

/// A guest's headers, and what is sent for those that it does not give.
fn add(set: &mut HeaderMap, headers: Headers, has_body: bool) -> Result<(), HostError> {
    for (name, value) in headers {
        let bad = || refuse(400, format!("'{}' is no header of HTTP, or its value is none", name.escape_debug()));
        let parsed: HeaderName = name.parse().map_err(|_invalid| bad())?;
        if !NOT_OF_GUESTS.contains(&parsed.as_str()) {
            set.append(parsed, HeaderValue::from_str(&value).map_err(|_invalid| bad())?);
        }
    }
    let content = (header::CONTENT_TYPE, "text/plain");
    let usual = [(header::ACCEPT, "*/*"), (header::ACCEPT_LANGUAGE, "en-us")];
    for (name, value) in usual.into_iter().chain(has_body.then_some(content)) {
        set.entry(name).or_insert(HeaderValue::from_static(value));
    }
    Ok(())
}

fn parse(url: &str) -> Result<Uri, HostError> {
    if url.is_empty() {
        return Err(refuse(400, "url is required"));
    }
    let bad = |why: &str| refuse(400, format!("'{}' is not a url to call: {why}", url.escape_debug()));
    let uri: Uri = url.parse().map_err(|error| bad(&format!("{error}")))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(bad("expected http:// or https://"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(refuse(400, "a url with user or password in it is not called: send them in the body, or in the query"));
    }
    Ok(uri)
}

fn read(response: Response<ureq::Body>, limit: usize) -> Result<Bytes, HostError> {
    let (parts, body) = response.into_parts();
    let mut bytes = Vec::new();
    // The bound is on what is read here, which is decompressed already; ureq's own is on what comes in.
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = body.into_with_config().limit(u64::MAX).reader().take(bound).read_to_end(&mut bytes);
    read.map_err(|error| failure(&ureq::Error::from(error)))?;
    if bytes.len() > limit {
        return Err(refuse(413, format!("the response is larger than {limit} bytes, the most a function is given")));
    }
    let reply = HttpReply::new(parts.status.as_u16(), headers(&parts.headers), &bytes);
    serde_json::to_vec(&reply).map(Bytes::from).map_err(|error| refuse(500, format!("the response cannot be written: {error}")))
}

fn headers(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        map.entry(canonical_name(name.as_str())).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    map
}

fn failure(error: &ureq::Error) -> HostError {
    match error {
        ureq::Error::Other(other) if let Some(denied) = other.downcast_ref::<Denied>() => refuse(403, denied.to_string()),
        ureq::Error::Timeout(_) => {
            refuse(504, "the http call took too long; its time is host_services.services.http.config.timeout_ms")
        }
        ureq::Error::BadUri(why) => refuse(400, format!("the http call failed: bad url: {why}")),
        ureq::Error::TooManyRedirects => refuse(502, format!("the http call failed: more than {MAX_REDIRECTS} redirects")),
        ureq::Error::RedirectFailed => {
            refuse(502, "the http call failed: the server redirects a request whose body is not sent twice; call its new address")
        }
        other => refuse(502, format!("the http call failed: {other}")),
    }
}
