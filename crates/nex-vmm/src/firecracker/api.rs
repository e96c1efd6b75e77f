//! Firecracker's API: HTTP/1.1 over a unix socket, one request a connection.
//!
//! Only the part of HTTP that this API uses: an answer has a status, headers and a body with a `Content-Length`.
//! *Trust:* an answer is at most [`MAX_ANSWER`] long, whatever length it claims.

use std::io;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::requests::{API, Request};
use crate::error::VmmError;
use crate::files::Files;
use crate::kind::VmmKind;
use crate::process::printable;

/// Longest answer, bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Most headers of an answer.
const MAX_HEADERS: usize = 16;

/// Makes a request; every status but 2xx is a refusal.
pub(super) async fn send(files: &Files, request: &Request) -> Result<(), VmmError> {
    let answer = exchange(files, request).await.map_err(|error| malformed(format!("the connection broke off: {error}")))??;
    if (200..300).contains(&answer.status) {
        return Ok(());
    }
    let request = format!("{} {}", request.method, request.path);
    Err(VmmError::Refused { vmm: VmmKind::Firecracker, request, message: fault(&answer) })
}

async fn exchange(files: &Files, request: &Request) -> io::Result<Result<Answer, VmmError>> {
    let mut stream = files.connect(API).await?;
    let body = request.body.to_string();
    let head = format!("{} {} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n", request.method, request.path);
    let rest = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(format!("{head}{rest}").as_bytes()).await?;
    let mut bytes = Vec::with_capacity(1024);
    loop {
        match parse(&bytes) {
            Ok(Some(answer)) => return Ok(Ok(answer)),
            Ok(None) if bytes.len() < MAX_ANSWER => {}
            Ok(None) => return Ok(Err(malformed("its answer is too long".to_owned()))),
            Err(why) => return Ok(Err(malformed(why.to_owned()))),
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A complete answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// Reads an answer; `None` while it is incomplete.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Answer>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(parsed) = head.parse(bytes) else { return Err("its answer is not HTTP") };
    let (httparse::Status::Complete(end), Some(status)) = (parsed, head.code) else { return Ok(None) };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.map_or(Some(0), |header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    let length = length.filter(|length| *length <= MAX_ANSWER).ok_or("the length of its answer is not valid")?;
    let body = bytes.get(end..).and_then(|rest| rest.get(..length));
    Ok(body.map(|body| Answer { status, body: body.to_vec() }))
}

/// The error message in an answer.
pub(crate) fn fault(answer: &Answer) -> String {
    let body = serde_json::from_slice::<Value>(&answer.body).ok();
    let message = body.as_ref().and_then(|body| body.get("fault_message")?.as_str());
    message.map_or_else(|| format!("status {}", answer.status), |message| printable(message, 500))
}

fn malformed(why: String) -> VmmError {
    VmmError::Malformed { vmm: VmmKind::Firecracker, why }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BAD: &str = "HTTP/1.1 400 \r\nServer: Firecracker API\r\nContent-Length: 26\r\n\r\n{\"fault_message\":\"no such\"}";

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let none = "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(parse(none.as_bytes()), Ok(Some(Answer { status: 204, body: Vec::new() })));
        let bad = BAD.replace("26", "27");
        for end in 0..bad.len() {
            assert_eq!(parse(bad.as_bytes().get(..end).unwrap()), Ok(None));
        }
        let answer = parse(bad.as_bytes()).unwrap().unwrap();
        assert_eq!((answer.status, fault(&answer)), (400, "no such".to_owned()));
        let short = parse(BAD.as_bytes()).unwrap().unwrap();
        assert_eq!(fault(&short), "status 400");
    }

    #[test]
    fn an_absurd_answer_is_refused() {
        for bad in ["SSH-2.0\r\n\r\n", "HTTP/1.1 \u{fffd}\r\n\r\n", "HTTP/1.1 200 \r\ncontent-length: 99999999\r\n\r\n"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(parse(b"HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n").is_err());
        assert!(parse(b"\xff\r\n\r\n").is_err());
    }

    #[tokio::test]
    async fn an_endless_answer_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(dir.path().join(API)).unwrap();
        let files = Files::open(dir.path(), crate::files::Fallback::Symlink).unwrap();
        let request = super::super::requests::press_power();
        let babble = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.write_all(b"HTTP/1.1 200 OK\r\nX: y").await.is_ok() {}
        };
        let (answer, ()) = tokio::join!(send(&files, &request), babble);
        assert!(matches!(answer, Err(VmmError::Malformed { .. })), "{answer:?}");
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(bytes in any::<Vec<u8>>(), cut in 0..BAD.len()) {
            drop(parse(&bytes));
            let mut mixed = BAD.as_bytes().get(..cut).unwrap_or_default().to_vec();
            mixed.extend(bytes);
            drop(parse(&mixed));
        }
    }
}
