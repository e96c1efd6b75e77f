//! `messaging`: publish and request on the workload's connection.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Request, RequestErrorKind, StatusCode};
use bytes::Bytes;
use data_encoding::BASE64;
use futures::StreamExt as _;
use nex_bus::own_headers::of_function;
use nex_protocol::host::HostError;
use nex_protocol::subject::is_valid_pattern;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::call::{CallContext, MAX_ANSWER, Sent};
use crate::config::MessagingConfig;
use crate::error::{refuse, unknown_method};

/// Most replies `requestMany` waits for.
const MAX_REPLIES: usize = 100;

pub(crate) async fn call(
    config: &MessagingConfig,
    context: &CallContext,
    method: &str,
    subject: &str,
    Sent { body, headers }: Sent,
) -> Result<Bytes, HostError> {
    let nats = &context.nats;
    if !matches!(method, "publish" | "request" | "requestMany") {
        return Err(unknown_method("messaging", method, "publish, request and requestMany"));
    }
    check_subject(subject)?;
    let headers = of_function(headers);
    let limit = nats.max_payload();
    if body.len() > limit {
        return Err(refuse(413, format!("the message is {} bytes, and NATS takes at most {limit}", body.len())));
    }
    match method {
        "publish" => {
            let published = publish(nats, subject, body, headers).await;
            if published.is_ok() && context.is_narrow {
                // The server says nothing where it permits a message, and otherwise what ends this call.
                context.denials.settle(nats).await;
            }
            published
        }
        "request" => request(nats, subject, body, headers, config.request_timeout).await,
        _ => request_many(nats, subject, body, headers, config.request_many_timeout).await,
    }
}

/// A function speaks to whom it likes, save the machinery: the server, JetStream and what its buckets are made of, nex
/// itself, and the inboxes in which others wait for their replies.
fn check_subject(subject: &str) -> Result<(), HostError> {
    if subject.is_empty() {
        return Err(refuse(400, "subject is required"));
    }
    if !is_valid_pattern(subject) || subject.contains(['*', '>']) {
        let text = "expected tokens joined by '.', without wildcards and white space, 512 bytes at most";
        return Err(refuse(400, format!("'{}' is not a subject: {text}", subject.escape_default())));
    }
    let first = subject.split('.').next().unwrap_or_default();
    let system = first.starts_with('$') && first != "$SRV";
    if system || ["_INBOX", "_R_", "_GR_"].contains(&first) {
        let text = format!("functions may not send to {first}.>, which belongs to the system; use a subject of your own");
        return Err(refuse(403, text));
    }
    Ok(())
}

async fn publish(nats: &Client, subject: &str, body: Bytes, headers: HeaderMap) -> Result<Bytes, HostError> {
    let failed = |why: &dyn std::fmt::Display| refuse(503, format!("failed to publish message: {why}"));
    // Without this a message would wait in memory, and be said to be sent.
    if nats.connection_state() != State::Connected {
        return Err(failed(&"NATS is not connected; try again"));
    }
    let subject = subject.to_owned();
    let sent = if headers.is_empty() {
        nats.publish(subject, body).await
    } else {
        nats.publish_with_headers(subject, headers, body).await
    };
    sent.map_err(|error| failed(&error))?;
    Ok(Bytes::from_static(br#"{"success":true}"#))
}

async fn request(nats: &Client, subject: &str, body: Bytes, headers: HeaderMap, limit: Duration) -> Result<Bytes, HostError> {
    let mut request = Request::new().payload(body).timeout(Some(limit));
    if !headers.is_empty() {
        request = request.headers(headers);
    }
    let reply = nats.send_request(subject.to_owned(), request).await.map_err(|error| match error.kind() {
        RequestErrorKind::TimedOut => {
            refuse(504, format!("failed to send request: no reply on {subject} within {} ms", limit.as_millis()))
        }
        RequestErrorKind::NoResponders => nobody(subject),
        _ => refuse(500, format!("failed to send request: {error}")),
    })?;
    Ok(reply.payload)
}

/// All replies until time or number are up, as a JSON array of base64.
async fn request_many(
    nats: &Client,
    subject: &str,
    body: Bytes,
    headers: HeaderMap,
    limit: Duration,
) -> Result<Bytes, HostError> {
    let failed = |why: &dyn std::fmt::Display| refuse(500, format!("failed to send request: {why}"));
    let end = Instant::now() + limit;
    let inbox = nats.new_inbox();
    let mut replies = nats.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
    let sent = if headers.is_empty() {
        nats.publish_with_reply(subject.to_owned(), inbox, body).await
    } else {
        nats.publish_with_reply_and_headers(subject.to_owned(), inbox, headers, body).await
    };
    sent.map_err(|error| failed(&error))?;
    let (mut found, mut size) = (Vec::new(), 2);
    while found.len() < MAX_REPLIES {
        let Ok(Some(reply)) = timeout_at(end, replies.next()).await else { break };
        if reply.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(nobody(subject));
        }
        let reply = BASE64.encode(&reply.payload);
        size += reply.len() + 3;
        if size > MAX_ANSWER {
            return Err(refuse(413, format!("the replies on {subject} are more than fit into {MAX_ANSWER} bytes")));
        }
        found.push(reply);
    }
    Ok(json!(found).to_string().into())
}

fn nobody(subject: &str) -> HostError {
    refuse(503, format!("failed to send request: nobody answers on {subject}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_the_system_are_refused_and_others_are_not() {
        for (subject, expected) in [
            ("orders", None),
            ("orders.$SYS.x", None),
            ("$SRV.PING", None),
            ("_INBOXES.a", None),
            ("", Some(400)),
            ("a..b", Some(400)),
            ("a b", Some(400)),
            ("a\r\nPUB x 0", Some(400)),
            ("a.*", Some(400)),
            ("$SYS.>", Some(400)),
            ("$SYS.REQ.SERVER.PING", Some(403)),
            ("$JS.API.STREAM.DELETE.KV_other", Some(403)),
            ("$NEX.DEPLOY.default.N", Some(403)),
            ("$NEX", Some(403)),
            ("$KV.hs_default_other_kv.key", Some(403)),
            ("$O.hs_default_other_obj.M.x", Some(403)),
            ("_INBOX.abc.def", Some(403)),
        ] {
            assert_eq!(check_subject(subject).err().map(|error| error.code), expected, "{subject}");
        }
    }
}
