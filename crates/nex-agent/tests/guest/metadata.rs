//! A metadata service like the monitor's, on this host: a token first, JSON only with the token and only on request.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const TOKEN: &str = "Zm9yIG9uZSBtaW51dGU=";

pub(crate) async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Answers until it is dropped.
pub(crate) async fn serve(listener: TcpListener, identity: String) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        answer(stream, &identity).await;
    }
}

async fn answer(mut stream: TcpStream, identity: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let request = String::from_utf8(request).unwrap().to_ascii_lowercase();
    let token = format!("x-metadata-token: {TOKEN}\r\n").to_ascii_lowercase();
    let (status, body) = if request.starts_with("put /latest/api/token ") && request.contains("x-metadata-token-ttl-seconds: ") {
        ("200 OK", TOKEN)
    } else if !request.contains(&token) {
        ("401 Unauthorized", "No MMDS token provided")
    } else if request.starts_with("get /nex ") && request.contains("accept: application/json\r\n") {
        ("200 OK", identity)
    } else {
        ("404 Not Found", "Resource not found")
    };
    let answer = format!("HTTP/1.1 {status}\r\nServer: Firecracker API\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
    // The guest has all of it and closes.
    assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
}
