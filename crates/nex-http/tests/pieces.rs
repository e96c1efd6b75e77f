//! Responses that come piece by piece, from a responder that is written by hand: what arrives when, what breaks off, and who hears of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use nex_bus::streaming::{Asked, Part, Pulls, word};
use nex_http::{Gateway, HttpConfig};
use nex_protocol::agent::streaming::Word;
use nex_protocol::reply::ReplySubject;
use nex_testkit::NatsServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const REQUEST: &[u8] = b"GET /events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

struct World {
    nats: Client,
    requests: Subscriber,
    gateway: Gateway,
    server: NatsServer,
}

impl World {
    async fn start() -> Self {
        let server = NatsServer::start().await;
        let nats = server.client().await;
        let requests = nats.subscribe("nex.http.default.GET.events").await.unwrap();
        nats.flush().await.unwrap();
        let config = HttpConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            namespace: "default".parse().unwrap(),
            hosts: BTreeMap::new(),
            tls: None,
            max_body_bytes: 1024,
            timeout: Duration::from_secs(20),
        };
        let gateway = Gateway::start(server.client().await, config).await.unwrap();
        Self { nats, requests, gateway, server }
    }

    /// A client that has asked, and what answers it.
    async fn ask(&mut self) -> (TcpStream, Pulls) {
        let mut client = TcpStream::connect(self.gateway.address()).await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        let request = self.requests.next().await.unwrap();
        assert_eq!(word(request.headers.as_ref()), Some(Word::Pull));
        let mut head = HeaderMap::new();
        head.insert("Content-Type", "text/event-stream");
        head.insert("Nex-Http-Status", "202");
        let to = ReplySubject::of(request.reply.as_deref()).unwrap();
        (client, Pulls::begin(&self.nats, to, head).await.unwrap())
    }
}

/// Reads until this has come.
async fn until(client: &mut TcpStream, expected: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(expected) {
        assert!(client.read_buf(&mut read).await.unwrap() > 0, "it ends with {}", String::from_utf8_lossy(&read));
    }
    String::from_utf8(read).unwrap()
}

async fn piece(pulls: &mut Pulls, text: &'static str) {
    assert_eq!(pulls.next().await, Asked::Next);
    pulls.answer(Part::Piece(Bytes::from_static(text.as_bytes()))).await;
}

#[tokio::test]
async fn a_piece_is_there_before_the_next_one_is_made_and_the_end_is_clean() {
    let mut world = World::start().await;
    let (mut client, mut pulls) = world.ask().await;
    piece(&mut pulls, "data: 1\n\n").await;
    let begun = until(&mut client, "data: 1\n\n").await;
    assert!(begun.starts_with("HTTP/1.1 202 Accepted\r\n") && begun.contains("text/event-stream"), "{begun}");
    assert!(!begun.to_lowercase().contains("nex-") && begun.contains("transfer-encoding: chunked"), "{begun}");
    assert_eq!(pulls.next().await, Asked::Next);
    pulls.answer(Part::Wait).await;
    piece(&mut pulls, "data: 2\n\n").await;
    until(&mut client, "data: 2\n\n").await;
    assert_eq!(pulls.next().await, Asked::Next);
    pulls.answer(Part::End).await;
    assert!(until(&mut client, "0\r\n\r\n").await.ends_with("0\r\n\r\n"));
    world.gateway.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn what_breaks_off_breaks_the_connection_off() {
    let mut world = World::start().await;
    for is_told in [true, false] {
        let (mut client, mut pulls) = world.ask().await;
        piece(&mut pulls, "half").await;
        until(&mut client, "half").await;
        if is_told {
            assert_eq!(pulls.next().await, Asked::Next);
            pulls.answer(Part::Failed(500, "it died".to_owned())).await;
        } else {
            // As when its process dies: it is asked in vain, or no more.
            drop(pulls);
        }
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.ok();
        assert!(!String::from_utf8_lossy(&rest).contains("0\r\n\r\n"), "a part was taken for the whole");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_told_to_who_answers() {
    let mut world = World::start().await;
    let (mut client, mut pulls) = world.ask().await;
    piece(&mut pulls, "first").await;
    until(&mut client, "first").await;
    drop(client);
    // A question may have been on its way.
    while pulls.next().await == Asked::Next {
        pulls.answer(Part::Wait).await;
    }
    assert!(!pulls.is_asked() || pulls.next().await == Asked::Gone);
    drop(world.server);
}

#[tokio::test]
async fn no_more_is_asked_for_than_the_client_takes() {
    let mut world = World::start().await;
    let (mut client, mut pulls) = world.ask().await;
    let (piece, pieces) = (Bytes::from(vec![b'x'; 64 * 1024]), 1_000);
    // It reads nothing: some pieces fill what is between, and then it waits.
    let mut sent = 0;
    while sent < pieces && tokio::time::timeout(Duration::from_millis(500), pulls.next()).await == Ok(Asked::Next) {
        pulls.answer(Part::Piece(piece.clone())).await;
        sent += 1;
    }
    assert!(sent < pieces, "64 MB were taken for a client that reads nothing");
    let answer = async {
        while sent < pieces {
            assert_eq!(pulls.next().await, Asked::Next);
            pulls.answer(Part::Piece(piece.clone())).await;
            sent += 1;
        }
        assert_eq!(pulls.next().await, Asked::Next);
        pulls.answer(Part::End).await;
    };
    let mut all = Vec::new();
    let (read, ()) = tokio::join!(client.read_to_end(&mut all), answer);
    assert!(read.unwrap() > pieces * piece.len());
}
