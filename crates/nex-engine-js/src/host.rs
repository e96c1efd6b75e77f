//! Host services as a script calls them: the worker blocks until the reply, no longer than the call's remaining time.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64;
use nex_protocol::host::{HostError, HostRequest, Service};
use rquickjs::function::Opt;
use rquickjs::{Array, Ctx, Error, Function, IntoJs, Object, Result, String as JsString, TypedArray};
use serde::Deserialize;

use crate::budget::Budget;
use crate::script::Script;
use crate::typed_array::copy_bytes;

/// Reply of the `http` service.
#[derive(Deserialize)]
struct HttpReply {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    body_base64: Option<String>,
}

#[derive(Clone)]
/// The host services of one isolate.
pub(crate) struct HostCalls {
    script: Arc<Script>,
    budget: Rc<Budget>,
}

impl HostCalls {
    pub(crate) fn new(script: &Arc<Script>, budget: &Rc<Budget>) -> Self {
        Self { script: Arc::clone(script), budget: Rc::clone(budget) }
    }

    /// Adds `host` and `http` to the natives.
    pub(crate) fn install<'js>(self, ctx: &Ctx<'js>, native: &Object<'js>) -> Result<()> {
        let calls = self.clone();
        let host =
            move |ctx: Ctx<'js>, service: String, method: String, target: String, body: Opt<Option<TypedArray<'js, u8>>>| {
                let service = service.parse::<Service>();
                let reply = service.and_then(|service| calls.ask(service, method, target, body.0.flatten().as_ref()));
                reply.map_or_else(|error| Err(throw(&ctx, &error)), |bytes| TypedArray::new_copy(ctx.clone(), bytes))
            };
        native.set("host", Function::new(ctx.clone(), host)?)?;
        let http = move |ctx: Ctx<'js>, method: String, url: String, body: Opt<Option<TypedArray<'js, u8>>>| {
            let reply = self.ask(Service::Http, method, url, body.0.flatten().as_ref()).and_then(|bytes| parse(&bytes));
            reply.map_or_else(|error| Err(throw(&ctx, &error)), |reply| to_script(&ctx, reply))
        };
        native.set("http", Function::new(ctx.clone(), http)?)
    }

    fn ask(
        &self,
        service: Service,
        method: String,
        target: String,
        body: Option<&TypedArray<'_, u8>>,
    ) -> std::result::Result<Bytes, HostError> {
        let body = body.and_then(|body| copy_bytes(body, usize::MAX).ok()).unwrap_or_default();
        let request = HostRequest { service, method, target, body };
        let answer = async { tokio::time::timeout(self.budget.left(), self.script.host.call(request)).await };
        let late = |_elapsed| HostError { code: 504, message: "host service did not answer within the call's time".to_owned() };
        self.script.handle.block_on(answer).map_err(late)?
    }
}

/// Host service errors are thrown as strings, as in 0.2.7.
fn throw(ctx: &Ctx<'_>, error: &HostError) -> Error {
    match JsString::from_str(ctx.clone(), &format!("Error: {error}")) {
        Ok(text) => ctx.throw(text.into_value()),
        Err(error) => error,
    }
}

fn parse(bytes: &[u8]) -> std::result::Result<(HttpReply, Vec<u8>), HostError> {
    let broken = |reason: String| HostError { code: 500, message: format!("reply of the http service is damaged: {reason}") };
    let reply: HttpReply = serde_json::from_slice(bytes).map_err(|error| broken(error.to_string()))?;
    let body = reply.body_base64.as_deref().unwrap_or_default();
    let body = BASE64.decode(body.as_bytes()).map_err(|error| broken(error.to_string()))?;
    Ok((reply, body))
}

/// `[status, headers as JSON or "", text or null, bytes]`; the prelude turns it into an object.
fn to_script<'js>(ctx: &Ctx<'js>, (reply, body): (HttpReply, Vec<u8>)) -> Result<Array<'js>> {
    let headers: BTreeMap<_, _> = reply.headers.into_iter().map(|(name, values)| (name, values.join(", "))).collect();
    let headers = if headers.is_empty() { String::new() } else { serde_json::to_string(&headers).unwrap_or_default() };
    let text = (!body.is_empty()).then(|| String::from_utf8_lossy(&body));
    let array = Array::new(ctx.clone())?;
    array.set(0, reply.status)?;
    array.set(1, headers)?;
    match text {
        Some(text) => array.set(2, text.as_ref())?,
        None => array.set(2, rquickjs::Null.into_js(ctx)?)?,
    }
    array.set(3, TypedArray::<u8>::new_copy(ctx.clone(), &body)?)?;
    Ok(array)
}
