//! The listener with TLS: a client that knows its certificate is answered, and one that speaks plainly is not.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use nex_http::{Gateway, HttpConfig, TlsFiles};
use nex_testkit::NatsServer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const REQUEST: &[u8] = b"GET /who HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";

async fn answered(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = Vec::new();
    // Whoever is not understood is cut off.
    stream.read_to_end(&mut answer).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

fn config(tls: TlsFiles) -> HttpConfig {
    HttpConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        namespace: "default".parse().unwrap(),
        hosts: BTreeMap::new(),
        tls: Some(tls),
        max_body_bytes: 1024,
        timeout: Duration::from_secs(20),
    }
}

#[tokio::test]
async fn a_client_that_knows_the_certificate_is_answered_and_a_plain_one_is_not() {
    let server = NatsServer::start().await;
    let nats = server.client().await;
    let mut requests = nats.subscribe("nex.http.default.GET.who").await.unwrap();
    nats.flush().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
    let files = TlsFiles { certificates: directory.path().join("cert.pem"), key: directory.path().join("key.pem") };
    std::fs::write(&files.certificates, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let gateway = Gateway::start(nats.clone(), config(files)).await.unwrap();

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions().unwrap();
    let connector = TlsConnector::from(Arc::new(client.with_root_certificates(roots).with_no_client_auth()));
    let plain = answered(TcpStream::connect(gateway.address()).await.unwrap()).await;
    assert!(!plain.starts_with("HTTP/1.1"), "{plain}");
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let stream = connector.connect("shop.example".try_into().unwrap(), stream).await.unwrap();
    let serve = async {
        let request = requests.next().await.unwrap();
        let scheme = request.headers.unwrap().get("Nex-Http-Scheme").unwrap().as_str().to_owned();
        nats.publish(request.reply.unwrap(), scheme.into()).await.unwrap();
    };
    let (answer, ()) = tokio::join!(answered(stream), serve);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("https"), "{answer}");
    gateway.stop(Duration::from_secs(5)).await;
    assert!(TcpStream::connect(gateway.address()).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_certificate_that_is_none_is_told() {
    let server = NatsServer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let files = TlsFiles { certificates: directory.path().join("none.pem"), key: directory.path().join("none.key") };
    let refused = Gateway::start(server.client().await, config(files)).await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
}
