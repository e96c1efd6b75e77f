//! Headers of requests as those of messages, and back.

use std::net::SocketAddr;

use async_nats::{HeaderMap as NatsHeaders, HeaderName as NatsName, HeaderValue as NatsValue};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{StatusCode, Uri};
use nex_protocol::agent::invocation::{HTTP_PREFIX, HTTP_STATUS, RESERVED_PREFIX};

/// Most bytes of headers that go on.
const MAX_BYTES: usize = 16 * 1024;
/// Headers of one connection, and of the message's framing; they end here.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// What NATS gives a meaning.
const NATS_PREFIX: &str = "nats-";

/// The headers are too many, or no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) StatusCode, pub(crate) &'static str);

fn is_ours(name: &str) -> bool {
    let begins = |with: &str| name.get(..with.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(with));
    begins(RESERVED_PREFIX) || begins(NATS_PREFIX)
}

/// What a message has of a request.
pub(crate) fn of_request(
    method: &str,
    uri: &Uri,
    headers: &HeaderMap,
    (scheme, client): (&str, SocketAddr),
) -> Result<NatsHeaders, Refused> {
    let mut message = NatsHeaders::new();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let own = [("Method", method), ("Path", path), ("Scheme", scheme), ("Client", &client.to_string())];
    for (name, value) in own {
        append(&mut message, &format!("{HTTP_PREFIX}{name}"), value)?;
    }
    let mut bytes = 0_usize;
    for (name, value) in headers {
        let name = name.as_str();
        if HOP_BY_HOP.contains(&name) || is_ours(name) {
            continue;
        }
        let value = value.to_str().map_err(|_binary| Refused(StatusCode::BAD_REQUEST, "a header is no text"))?;
        bytes += name.len() + value.len();
        append(&mut message, name, value)?;
    }
    if bytes > MAX_BYTES {
        return Err(Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers have more than 16 KiB"));
    }
    Ok(message)
}

fn append(message: &mut NatsHeaders, name: &str, value: &str) -> Result<(), Refused> {
    let parsed = name.parse::<NatsName>().ok().zip(value.parse::<NatsValue>().ok());
    let (name, value) = parsed.ok_or(Refused(StatusCode::BAD_REQUEST, "a header is none that NATS takes"))?;
    message.append(name, value);
    Ok(())
}

/// What a response has of a reply. What is no header of HTTP is left out.
pub(crate) fn of_reply(reply: Option<&NatsHeaders>) -> (StatusCode, HeaderMap) {
    let mut headers = HeaderMap::new();
    let Some(reply) = reply else { return (StatusCode::OK, headers) };
    let status = reply.get(HTTP_STATUS).and_then(|status| status.as_str().parse::<u16>().ok());
    // What is not final is no answer.
    let status = status.and_then(|status| StatusCode::from_u16(status).ok()).filter(|status| status.as_u16() >= 200);
    for (name, values) in reply.iter() {
        let text: &str = name.as_ref();
        if is_ours(text) || HOP_BY_HOP.contains(&text.to_ascii_lowercase().as_str()) {
            continue;
        }
        let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else { continue };
        for value in values.iter().filter_map(|value| HeaderValue::from_str(value.as_str()).ok()) {
            headers.append(name.clone(), value);
        }
    }
    (status.unwrap_or(StatusCode::OK), headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Result<NatsHeaders, Refused> {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect();
        of_request("GET", &"/a?b=1".parse().unwrap(), &headers, ("http", ([127, 0, 0, 1], 9).into()))
    }

    #[test]
    fn a_request_says_nothing_in_the_name_of_nats_or_nex() {
        let message = request(&[
            ("x-mine", "1"),
            ("nats-msg-id", "x"),
            ("nex-http-method", "DELETE"),
            ("nex-trigger", "stream"),
            ("connection", "close"),
            ("host", "a.example"),
        ]);
        let message = message.unwrap();
        let get = |name: &str| message.get_all(name).map(|value| value.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!((get("x-mine"), get("host")), (vec!["1".to_owned()], vec!["a.example".to_owned()]));
        assert_eq!((get("Nex-Http-Method"), get("Nex-Http-Path")), (vec!["GET".to_owned()], vec!["/a?b=1".to_owned()]));
        assert_eq!(message.len(), 6, "{message:?}");
        assert_eq!(request(&[("x", &"y".repeat(MAX_BYTES))]).unwrap_err().0, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }

    #[test]
    fn a_reply_becomes_a_response_without_what_is_between_hops() {
        let mut reply = NatsHeaders::new();
        for (name, value) in [
            ("Content-Type", "text/plain"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("Content-Length", "5"),
            ("Transfer-Encoding", "chunked"),
            ("Nex-Http-Status", "201"),
            ("Nats-Service-Error", "x"),
        ] {
            reply.append(name, value);
        }
        let (status, headers) = of_reply(Some(&reply));
        assert_eq!((status.as_u16(), headers.len()), (201, 3));
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        for status in ["99", "101", "x", "700000"] {
            reply.insert("Nex-Http-Status", status);
            assert_eq!(of_reply(Some(&reply)).0, StatusCode::OK, "{status}");
        }
        assert_eq!(of_reply(None).0, StatusCode::OK);
    }
}
