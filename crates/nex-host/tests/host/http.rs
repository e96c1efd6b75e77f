//! `http`, against a server of a few lines on the loopback.

use std::net::SocketAddr;

use data_encoding::BASE64;
use nex_host::Config;
use nex_testkit::NatsServer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::{Caller, config};

/// "hello, " forty times, by gzip.
const GZIP: [u8; 31] = [
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0xd7, 0x51, 0xc8, 0x18, 0xa5, 0x50,
    0x29, 0x00, 0x32, 0x86, 0x11, 0xe5, 0x18, 0x01, 0x00, 0x00,
];

/// Serves `/echo` (what it was sent, as text), `/binary`, `/gzip`, `/big`, `/missing`, `/there` (a redirect), `/silent`.
struct Server {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream));
            }
        });
        Self { address, _tasks: tasks }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn serve(mut stream: TcpStream) {
    let (head, body) = receive(&mut stream).await;
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (status, headers, body) = match path.split('?').next().unwrap_or_default() {
        "/binary" => ("200 OK", "Content-Type: image/x\r\nX-Two: a\r\nx-two: b\r\n", (0..=255).collect()),
        "/gzip" => ("200 OK", "Content-Encoding: gzip\r\n", GZIP.to_vec()),
        "/big" => ("200 OK", "", vec![b'x'; 2 * 1024 * 1024]),
        "/missing" => ("404 Not Found", "", b"not here".to_vec()),
        "/there" => ("302 Found", "Location: /echo?from=there\r\n", Vec::new()),
        "/silent" => return std::future::pending().await,
        _ => ("200 OK", "", [head.as_bytes(), &body].concat()),
    };
    let length = body.len();
    let reply = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
    // A client that has read enough hangs up.
    stream.write_all(reply.as_bytes()).await.ok();
    if !head.starts_with("HEAD ") {
        stream.write_all(&body).await.ok();
    }
}

/// Head and body of one request.
async fn receive(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok();
            let length = head.lines().find_map(length).unwrap_or(0);
            if bytes.len() >= end + length {
                return (head, bytes.split_off(end));
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return (String::new(), Vec::new());
        }
    }
}

async fn caller(nats: &NatsServer, settings: Value) -> Caller {
    Caller::new(nats.client().await, config("http", true, settings))
}

/// The body in an answer.
fn body(answer: &Value) -> Vec<u8> {
    BASE64.decode(answer["body_base64"].as_str().unwrap().as_bytes()).unwrap()
}

fn text(answer: &Value) -> String {
    String::from_utf8(body(answer)).unwrap()
}

#[tokio::test]
async fn every_method_arrives_with_its_query_and_its_body() {
    let (nats, server) = (NatsServer::start().await, Server::start().await);
    let caller = caller(&nats, json!({"allow_private": true})).await;
    let url = server.url("/echo/a?x=1&y=%20z&x=2");
    for (method, has_body) in [("get", false), ("delete", false), ("post", true), ("put", true), ("patch", true)] {
        let echoed = text(&caller.json(&format!("http.{method}"), &url, "the body").await);
        let line = format!("{} /echo/a?x=1&y=%20z&x=2 HTTP/1.1\r\n", method.to_uppercase());
        assert!(echoed.starts_with(&line), "{echoed}");
        assert_eq!(echoed.ends_with("\r\n\r\nthe body"), has_body, "{echoed}");
        assert_eq!(echoed.to_lowercase().contains("content-type: text/plain"), has_body, "{echoed}");
        assert!(!echoed.to_lowercase().contains("authorization"), "{echoed}");
    }
    let head = caller.json("http.head", &server.url("/binary"), "").await;
    assert_eq!((&head["status"], &head["body_base64"]), (&json!(200), &json!("")));
    assert_eq!(head["headers"]["Content-Length"], json!(["256"]));
}

#[tokio::test]
async fn binary_and_packed_bodies_and_headers_survive() {
    let (nats, server) = (NatsServer::start().await, Server::start().await);
    let caller = caller(&nats, json!({"allow_private": true})).await;
    let answer = caller.json("http.get", &server.url("/binary"), "").await;
    assert_eq!(body(&answer), (0..=255).collect::<Vec<u8>>());
    assert_eq!(answer["headers"]["Content-Type"], json!(["image/x"]));
    assert_eq!(answer["headers"]["X-Two"], json!(["a", "b"]));

    let all: Vec<u8> = (0..=255).collect();
    let echoed = body(&caller.json("http.post", &server.url("/echo"), &all).await);
    assert!(echoed.ends_with(&all), "what is sent is not changed either");

    assert_eq!(text(&caller.json("http.get", &server.url("/gzip"), "").await), "hello, ".repeat(40));
    let missing = caller.json("http.get", &server.url("/missing"), "").await;
    assert_eq!((&missing["status"], text(&missing)), (&json!(404), "not here".to_owned()), "a status is no error");
    let followed = text(&caller.json("http.get", &server.url("/there"), "").await);
    assert!(followed.starts_with("GET /echo?from=there "), "{followed}");
}

#[tokio::test]
async fn a_request_has_the_headers_it_is_given_save_those_of_the_connection() {
    let (nats, server) = (NatsServer::start().await, Server::start().await);
    let caller = caller(&nats, json!({"allow_private": true})).await;
    let lines = ["X-Mine: a: b", "content-type: application/json", "Host: other", "Transfer-Encoding: chunked", "Accept: text/x"];
    let answer: Value =
        serde_json::from_slice(&caller.with("http.post", &server.url("/echo"), "{}", &lines).await.unwrap()).unwrap();
    let echoed = text(&answer).to_lowercase();
    for expected in ["x-mine: a: b\r\n", "content-type: application/json\r\n", "accept: text/x\r\n"] {
        assert_eq!(echoed.matches(expected).count(), 1, "{expected}: {echoed}");
    }
    assert!(!echoed.contains("text/plain") && !echoed.contains("other") && !echoed.contains("chunked"), "{echoed}");
    let error = caller.with("http.get", &server.url("/echo"), "", &["a b: c"]).await.unwrap_err();
    assert!(error.code == 400 && error.message.contains("'a b'"), "{error}");
}

#[tokio::test]
async fn size_and_time_are_bounded() {
    let (nats, server) = (NatsServer::start().await, Server::start().await);
    let settings = json!({"allow_private": true, "timeout_ms": 2000});
    let (code, text) = caller(&nats, settings).await.refused("http.get", &server.url("/big"), "").await;
    assert!(code == 413 && text.contains("1048576 bytes"), "{text}");

    // 31 bytes come in, 280 would come out.
    let small = caller(&nats, json!({"allow_private": true, "max_response_bytes": 100, "timeout_ms": 100})).await;
    assert_eq!(small.refused("http.get", &server.url("/gzip"), "").await.0, 413);
    let (code, text) = small.refused("http.get", &server.url("/silent"), "").await;
    assert!(code == 504 && text.contains("timeout_ms"), "{text}");
}

#[tokio::test]
async fn the_inner_network_is_refused_unless_allowed() {
    let (nats, server) = (NatsServer::start().await, Server::start().await);
    let caller = Caller::new(nats.client().await, Config::default());
    let port = server.address.port();
    for url in [server.url("/echo"), format!("http://localhost:{port}/"), format!("http://[::ffff:127.0.0.1]:{port}/")] {
        let (code, text) = caller.refused("http.get", &url, "").await;
        assert!(code == 403 && text.contains("loopback") && text.contains("allow_private"), "{url}: {text}");
    }
    let (code, text) = caller.refused("http.get", "http://169.254.169.254/latest/meta-data/", "").await;
    assert!(code == 403 && text.contains("metadata"), "{text}");
    assert_eq!(caller.refused("http.get", "http://user:secret@example.org/", "").await.0, 400);
    assert_eq!(caller.refused("http.get", "", "").await, (400, "url is required".to_owned()));
}

#[tokio::test]
async fn a_server_that_is_not_there_or_not_trusted_is_told_so() {
    let nats = NatsServer::start().await;
    let caller = caller(&nats, json!({"allow_private": true})).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (code, text) = caller.refused("http.get", &format!("http://{closed}/"), "").await;
    assert!(code == 502 && text.contains("the http call failed"), "{text}");
    // It speaks, but not TLS.
    let server = Server::start().await;
    let (code, text) = caller.refused("http.get", &format!("https://{}/", server.address), "").await;
    assert!(code == 502 || code == 504, "{code} {text}");
}
