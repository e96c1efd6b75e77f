//! Host services as engines see them: a request on the agent's own subject, answered by the node.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, HeaderValue, RequestErrorKind};
use bytes::Bytes;
use futures::future::BoxFuture;
use nex_engine::HostClient;
use nex_protocol::agent::{AgentEvent, subject};
use nex_protocol::host::{CODE, HostError, HostRequest, MESSAGE, TARGET, WITH};
use nex_protocol::id::{AgentId, InstanceId};

use crate::event::EventSender;

/// Longest wait for a host service.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The way to the node's host services.
pub(crate) struct BusHostClient {
    pub(crate) bus: Client,
    pub(crate) agent: AgentId,
    pub(crate) instance: InstanceId,
    /// Where it is told that a call does not end, if anybody wants to know.
    pub(crate) events: Option<Arc<EventSender>>,
}

impl HostClient for BusHostClient {
    fn call(&self, request: HostRequest) -> BoxFuture<'_, Result<Bytes, HostError>> {
        Box::pin(self.ask(request))
    }

    fn stuck(&self, message: String) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(events) = &self.events {
                events.deliver(&self.instance, &AgentEvent::Stuck { message }).await;
            }
        })
    }
}

impl BusHostClient {
    async fn ask(&self, request: HostRequest) -> Result<Bytes, HostError> {
        let HostRequest { service, method, target, body, headers: own } = request;
        let line = |text: String| -> Result<HeaderValue, HostError> {
            text.parse().map_err(|_invalid| HostError { code: 400, message: "a line break is not allowed here".into() })
        };
        let mut headers = HeaderMap::new();
        headers.insert(TARGET, line(target)?);
        for (name, value) in own {
            headers.append(WITH, line(format!("{name}: {value}"))?);
        }
        let subject = subject::host_call(&self.agent, &self.instance, service, &method);
        let request = async_nats::Request::new().payload(body).headers(headers).timeout(Some(TIMEOUT));
        let answer = self.bus.send_request(subject, request).await.map_err(|error| match error.kind() {
            RequestErrorKind::TimedOut => {
                HostError { code: 504, message: format!("{service}.{method} did not answer within {} s", TIMEOUT.as_secs()) }
            }
            _ => HostError { code: 500, message: format!("{service}.{method} cannot be reached: {error}") },
        })?;
        let header =
            |name: &str| answer.headers.as_ref().and_then(|headers| headers.get(name)).map(|value| value.as_str().to_owned());
        match header(CODE).and_then(|code| code.parse().ok()).unwrap_or(200) {
            200 => Ok(answer.payload),
            code => Err(HostError { code, message: header(MESSAGE).unwrap_or_default() }),
        }
    }
}
