//! Redirects: the first server may be reached, by a rule of the test, and what it points at may not.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::config::Config;

/// Serves one redirect on every connection.
async fn redirecting_to(location: String) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let read = stream.read(&mut head).await;
            let reply = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            if read.is_ok() {
                stream.write_all(reply.as_bytes()).await.ok();
            }
        }
    });
    (address, tasks)
}

async fn get(url: &str, open: SocketAddr) -> HostError {
    let guard = Guard::by(move |address| if *address == open { None } else { refusal_of(address) });
    let http = Http::guarded(&Config::default().http, guard);
    http.call("ns.one", "get", url, Sent::default()).await.unwrap_err()
}

fn refusal_of(address: &SocketAddr) -> Option<&'static str> {
    crate::address::refusal(address.ip())
}

#[tokio::test]
async fn a_redirect_to_an_inner_address_is_refused() {
    let inner = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    inner.set_nonblocking(true).unwrap();
    for target in [format!("http://{}/", inner.local_addr().unwrap()), "http://169.254.169.254/latest/meta-data/".to_owned()] {
        let (server, _tasks) = redirecting_to(target.clone()).await;
        let error = get(&format!("http://{server}/"), server).await;
        assert_eq!(error.code, 403, "{target}: {error}");
        assert!(error.message.contains("allow_private"), "{error}");
    }
    assert!(inner.accept().is_err(), "nobody has connected to the inner address");
}

#[tokio::test]
async fn a_redirect_with_a_user_in_it_or_without_end_is_refused() {
    let (server, _tasks) = redirecting_to("http://user:secret@127.0.0.1/".to_owned()).await;
    let error = get(&format!("http://{server}/"), server).await;
    assert_eq!(error.code, 400, "{error}");
    let (server, _tasks) = redirecting_to("/again".to_owned()).await;
    let error = get(&format!("http://{server}/"), server).await;
    assert!(error.code == 502 && error.message.contains("5 redirects"), "{error}");
}

#[tokio::test]
async fn slow_calls_of_one_workload_leave_room_for_another() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = format!("http://{}/", silent.local_addr().unwrap());
    let (server, _tasks) = redirecting_to("/again".to_owned()).await;
    let config = crate::config::HttpConfig { timeout: std::time::Duration::from_secs(60), ..Config::default().http };
    let http = Arc::new(Http::guarded(&config, Guard::open()));
    let mut calls = JoinSet::new();
    for _ in 0..=MAX_CALLS {
        let (http, slow) = (Arc::clone(&http), slow.clone());
        calls.spawn(async move { http.call("ns.slow", "get", &slow, Sent::default()).await.err() });
    }
    // All that are let through have come.
    let mut kept = Vec::new();
    for _ in 0..MAX_CALLS_OF_ONE {
        kept.push(silent.accept().await.unwrap());
    }
    let error = http.call("ns.other", "get", &format!("http://{server}/"), Sent::default()).await.unwrap_err();
    assert!(error.message.contains("5 redirects"), "it was called: {error}");
    assert!(futures::future::poll_immediate(silent.accept()).await.is_none(), "no more than its share");
    calls.abort_all();
    drop(kept);
}

#[tokio::test]
async fn a_url_that_cannot_be_called_is_the_callers_fault() {
    for url in ["", "example.org", "ftp://example.org/", "http://", "http://a b/", "http://user@example.org/", "/path"] {
        let error = get(url, SocketAddr::from(([127, 0, 0, 1], 1))).await;
        assert_eq!(error.code, 400, "{url}: {error}");
    }
    assert_eq!(canonical_name("x-nex-hs-code"), "X-Nex-Hs-Code");
}

#[tokio::test]
async fn an_address_written_in_an_odd_way_is_judged_as_what_it_is() {
    for url in
        ["http://2130706433/", "http://0x7f.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://localhost/", "http://0/"]
    {
        let error = get(url, SocketAddr::from(([127, 0, 0, 1], 1))).await;
        assert_eq!(error.code, 403, "{url}: {error}");
    }
}
