//! A client of the metadata service that a monitor offers on a link-local address: MMDS, version 2.
//!
//! ```text
//! PUT /latest/api/token   X-metadata-token-ttl-seconds: 60   ─► a token
//! GET /nex                X-metadata-token, Accept: json     ─► a `GuestIdentity`
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nex_process::Deadline;
use nex_protocol::guest::{GuestIdentity, MAX_LINE, METADATA_KEY};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Address of the service, as the monitor configures it.
pub(super) const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);
/// Longest time to read the identity; the node stores it before it announces it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time of one attempt, and the delay before the next.
const ATTEMPT: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(50);
/// Largest head of an answer.
const MAX_HEAD: usize = 8 * 1024;
/// Most headers of an answer.
const MAX_HEADERS: usize = 16;
/// Largest body of an answer: the identity is JSON escaped inside JSON.
const MAX_BODY: usize = 2 * MAX_LINE;
/// Longest token accepted.
const MAX_TOKEN: usize = 512;

/// Reads the guest's identity, with retries until the deadline.
///
/// # Errors
/// The error of the last attempt.
pub(super) async fn read(service: SocketAddr) -> anyhow::Result<Box<GuestIdentity>> {
    let by = Deadline::after(TIMEOUT);
    loop {
        let error = match by.bound(Deadline::after(ATTEMPT).bound(fetch(service))).await {
            Ok(Ok(Ok(identity))) => return Ok(identity),
            Ok(Ok(Err(error))) => error,
            Ok(Err(elapsed)) => anyhow::Error::new(elapsed).context(format!("no answer in {ATTEMPT:?}")),
            Err(elapsed) => anyhow::Error::new(elapsed),
        };
        if by.remaining() <= RETRY {
            let next = "next: check that the monitor's metadata service is of version 2 and has this machine's interface";
            return Err(error.context(format!("the metadata service gave no identity; {next}")));
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn fetch(service: SocketAddr) -> anyhow::Result<Box<GuestIdentity>> {
    let token = exchange(service, "PUT /latest/api/token", "X-metadata-token-ttl-seconds: 60\r\n").await.context("no token")?;
    let token = String::from_utf8(token).context("the token is not text")?;
    if token.is_empty() || token.len() > MAX_TOKEN || token.chars().any(|it| it.is_control() || it == ' ') {
        bail!("the token is not one that could be passed back");
    }
    let headers = format!("X-metadata-token: {token}\r\nAccept: application/json\r\n");
    let body = exchange(service, &format!("GET /{METADATA_KEY}"), &headers).await.context("no metadata")?;
    serde_json::from_slice(&body).context("the metadata is not understood; next: use a node and an image of one build")
}

/// Sends one request on a new connection; returns the body of a successful answer.
async fn exchange(service: SocketAddr, request: &str, headers: &str) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(service).await.context("cannot connect")?;
    let request = format!("{request} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n{headers}\r\n", service.ip());
    stream.write_all(request.as_bytes()).await.context("cannot send the request")?;
    let mut answer = Vec::new();
    let mut chunk = vec![0; 4096];
    loop {
        if let Some((head, length)) = head_of(&answer)? {
            let body = answer.get(head..).unwrap_or_default();
            if let Some(body) = body.get(..length) {
                return Ok(body.to_vec());
            }
        } else if answer.len() > MAX_HEAD {
            bail!("the head of the answer is longer than {MAX_HEAD} bytes");
        }
        match stream.read(&mut chunk).await.context("cannot read the answer")? {
            0 => bail!("the answer was cut short"),
            count => answer.extend(chunk.iter().take(count)),
        }
    }
}

/// Offset and length of an answer's body, once its head is complete.
fn head_of(answer: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = head.parse(answer).context("the answer is not HTTP")? else { return Ok(None) };
    if head.code != Some(200) {
        let reason = head.reason.unwrap_or_default().chars().take(80).collect::<String>();
        bail!("the answer is '{} {reason}'", head.code.unwrap_or_default());
    }
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    match length {
        Some(length) if length <= MAX_BODY => Ok(Some((end, length))),
        Some(length) => bail!("the answer has {length} bytes, more than {MAX_BODY}"),
        None => bail!("the answer has no Content-Length"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    const WELCOME: &str = r#"{"identity":"{\"seed\":1}","hostname":"a","network":null,"time_unix_nanos":1,"entropy":"",
        "limits":{"uid":1,"processes":1,"open_files":1,"file_bytes":1,"tmp_bytes":1}}"#;
    const TOKEN: &str = "dG9rZW4=";

    /// Answers as the monitor does: a token for a PUT with a time to live, JSON only for the token and only if it is wanted.
    fn answer(request: &str, headers: &[(String, String)]) -> (&'static str, String) {
        let header = |name: &str| headers.iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
        match request {
            "PUT /latest/api/token HTTP/1.1" => match header("x-metadata-token-ttl-seconds").map(str::parse::<u32>) {
                Some(Ok(1..=21_600)) => ("200 OK", TOKEN.to_owned()),
                _ => ("400 Bad Request", "Token time to live value not found".to_owned()),
            },
            "GET /nex HTTP/1.1" => match (header("x-metadata-token"), header("accept")) {
                (Some(TOKEN), Some("application/json")) => ("200 OK", WELCOME.to_owned()),
                (Some(TOKEN), _) => ("200 OK", "hostname\nidentity".to_owned()),
                _ => ("401 Unauthorized", "No MMDS token provided".to_owned()),
            },
            _ => ("404 Not Found", "Resource not found".to_owned()),
        }
    }

    fn serve(
        listener: &TcpListener,
        requests: usize,
        mut answer: impl FnMut(&str, &[(String, String)]) -> (&'static str, String),
    ) {
        for _ in 0..requests {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let request = lines.next().unwrap();
            let headers = lines
                .take_while(|line| !line.is_empty())
                .filter_map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())));
            let (status, body) = answer(&request, &headers.collect::<Vec<_>>());
            let head = format!("HTTP/1.1 {status}\r\nServer: MMDS\r\nContent-Length: {}\r\n\r\n", body.len());
            // In two pieces, and left open: the length decides, not the end.
            (&stream).write_all(head.as_bytes()).unwrap();
            (&stream).write_all(body.as_bytes()).unwrap();
            std::thread::spawn(move || (&stream).read(&mut [0; 1]).ok());
        }
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn a_guest_learns_who_it_is_by_token() {
        let (listener, address) = listener();
        let service = std::thread::spawn(move || serve(&listener, 2, answer));
        let identity = read(address).await.unwrap();
        assert_eq!((identity.identity.as_str(), identity.hostname.as_str()), (r#"{"seed":1}"#, "a"));
        service.join().unwrap();
    }

    #[tokio::test]
    async fn a_service_that_is_not_ready_yet_is_asked_again() {
        let (listener, address) = listener();
        let mut first = true;
        let service = std::thread::spawn(move || {
            serve(&listener, 3, |request, headers| match std::mem::take(&mut first) {
                true => ("404 Not Found", String::new()),
                false => answer(request, headers),
            });
        });
        assert_eq!(read(address).await.unwrap().hostname, "a");
        service.join().unwrap();
    }

    #[test]
    fn an_answer_too_long_or_without_a_length_is_refused() {
        assert!(head_of(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").is_err());
        assert!(head_of(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n").is_err());
        assert!(head_of(b"HTTP/1.1 500 Oh\r\nContent-Length: 1\r\n\r\n").unwrap_err().to_string().contains("500"));
        assert_eq!(head_of(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc").unwrap(), Some((38, 3)));
        assert_eq!(head_of(b"HTTP/1.1 200").unwrap(), None);
    }

    proptest::proptest! {
        #[test]
        fn no_head_is_too_strange(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), cut in 0..60_usize) {
            const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
            let mixed = [GOOD.get(..cut.min(GOOD.len())).unwrap_or_default(), bytes.as_slice()].concat();
            for answer in [bytes, mixed] {
                if let Ok(Some((head, length))) = head_of(&answer) {
                    proptest::prop_assert!(head <= answer.len() && length <= MAX_BODY);
                }
            }
        }
    }
}
