//! Host services as a script calls them: the worker blocks until the reply, no longer than the call's remaining time.

use std::collections::BTreeMap;

use bytes::Bytes;
use nex_protocol::agent::invocation::Headers;
use nex_protocol::host::{HostError, HostRequest, HttpReply, Service};

use crate::budget::Budget;
use crate::message::Message;
use crate::script::Script;
use crate::value::{Fresh, Scope, Thrown, Value};

/// Of what call a host service is asked.
pub(crate) struct Asking<'h> {
    pub(crate) script: &'h Script,
    pub(crate) budget: &'h Budget,
    pub(crate) message: &'h Message,
}

/// `(service, method, target, body, headers)`; gives the bytes of the reply.
pub(crate) fn call<'a>(asking: &Asking<'_>, scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let [service, given @ ..] = given else { return Ok(scope.undefined()) };
    let service = scope.to_text(*service)?;
    let asked = request(scope, given)?;
    let reply = service.parse::<Service>().and_then(|service| ask(asking, service, asked));
    match reply {
        Ok(bytes) => scope.bytes(&bytes),
        Err(error) => Err(throw(scope, &error)),
    }
}

/// `(method, url, body, headers)`; gives the reply's parts in an object, of which the prelude makes another.
pub(crate) fn http<'a>(asking: &Asking<'_>, scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let asked = request(scope, given)?;
    let reply = ask(asking, Service::Http, asked).and_then(|bytes| HttpReply::read(&bytes));
    match reply {
        Ok((reply, body)) => to_script(scope, reply, &body),
        Err(error) => Err(throw(scope, &error)),
    }
}

/// `(bytes)`: a piece of the response. Waits until it is taken, no longer than the call's remaining time.
pub(crate) fn piece<'a>(asking: &Asking<'_>, scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let Asking { script, budget, message } = asking;
    let piece = given.first().and_then(|piece| scope.with_bytes(*piece, Bytes::copy_from_slice)).unwrap_or_default();
    let Some(streaming) = message.streaming() else { return Ok(scope.undefined()) };
    let sent = async { tokio::time::timeout(budget.left(), streaming.send(&piece)).await };
    match script.handle.block_on(sent) {
        Ok(Ok(())) => Ok(scope.undefined()),
        Ok(Err(why)) => Err(scope.throw_text(&why.to_string())),
        Err(_elapsed) => Err(scope.throw_text("the response was not taken within the call's time")),
    }
}

/// Method, target, body and headers.
type Asked = (String, String, Bytes, Headers);

fn request<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Asked, Thrown> {
    let text = |at: usize| given.get(at).map_or(Ok(String::new()), |value| scope.to_text(*value));
    let body = given.get(2).and_then(|body| scope.with_bytes(*body, Bytes::copy_from_slice)).unwrap_or_default();
    let headers = match given.get(3) {
        Some(pairs) if !pairs.is_undefined() => serde_json::from_str(&scope.to_text(*pairs)?).unwrap_or_default(),
        _ => Headers::new(),
    };
    Ok((text(0)?, text(1)?, body, headers))
}

fn ask(asking: &Asking<'_>, service: Service, (method, target, body, headers): Asked) -> Result<Bytes, HostError> {
    let mut request = HostRequest { service, method, target, body, headers };
    let Asking { script, budget, message } = asking;
    message.add_trace(&mut request);
    let own = message.host();
    let host = own.as_ref().unwrap_or(&script.host);
    let answer = async { tokio::time::timeout(budget.left(), host.call(request)).await };
    let late = |_elapsed| HostError { code: 504, message: "host service did not answer within the call's time".to_owned() };
    script.handle.block_on(answer).map_err(late)?
}

/// Host service errors are thrown as strings, as in 0.2.7.
fn throw(scope: Scope<'_>, error: &HostError) -> Thrown {
    scope.throw_text(&format!("Error: {error}"))
}

/// `headers` is JSON or "", `response` a text or null.
fn to_script<'a>(scope: Scope<'a>, reply: HttpReply, body: &[u8]) -> Result<Fresh<'a>, Thrown> {
    let headers: BTreeMap<_, _> = reply.headers.into_iter().map(|(name, values)| (name, values.join(", "))).collect();
    let headers = if headers.is_empty() { String::new() } else { serde_json::to_string(&headers).unwrap_or_default() };
    let object = scope.object()?;
    scope.set(&object, c"status", scope.number(reply.status.into()))?;
    scope.set(&object, c"headers", scope.text(&headers)?)?;
    let response = if body.is_empty() { scope.null() } else { scope.text(&String::from_utf8_lossy(body))? };
    scope.set(&object, c"response", response)?;
    scope.set(&object, c"bytes", scope.bytes(body)?)?;
    Ok(object)
}
