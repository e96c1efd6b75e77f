//! One try of a health check. Everything that answers is the workload's, and is read as a stranger's: bounded, and by its first bytes only.
//! How long it may take is the caller's bound; dropped, nothing of it is left.

use std::net::Ipv4Addr;

use bytes::Bytes;
use nex_engine::HostClient as _;
use nex_engine::native::Beside;
use nex_protocol::deploy::Probe;
use nex_protocol::host::{HostRequest, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::host_client::BusHostClient;

/// Bytes of an answer in which its status has to be.
const HEAD: usize = 64;

/// Tries once.
///
/// # Errors
/// Why it failed, for people.
pub(crate) async fn attempt(probe: &Probe, beside: &Beside, host: &BusHostClient) -> Result<(), String> {
    match probe {
        Probe::Command(words) => beside.run(words).await,
        Probe::Tcp(port) => connect(*port).await.map(drop),
        Probe::Http { port, path } => get(connect(*port).await?, *port, path).await,
        Probe::Nats(subject) => {
            let request = HostRequest {
                service: Service::Messaging,
                method: "request".to_owned(),
                target: subject.clone(),
                body: Bytes::new(),
                headers: Vec::new(),
            };
            host.call(request).await.map(drop).map_err(|error| error.message)
        }
    }
}

async fn connect(port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| format!("port {port}: {error}"))
}

/// One GET, of whose answer the status counts.
async fn get(mut stream: TcpStream, port: u16, path: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("port {port}: {error}");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: nex-health\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut head = Vec::with_capacity(HEAD);
    while head.len() < HEAD && !head.contains(&b'\n') {
        let read = (&mut stream).take((HEAD - head.len()) as u64).read_buf(&mut head).await.map_err(failed)?;
        if read == 0 {
            break;
        }
    }
    match status(&head) {
        Some(200..400) => Ok(()),
        Some(status) => Err(format!("it answers with status {status}")),
        None => Err("what it answers is no HTTP".to_owned()),
    }
}

/// The status of an answer: `HTTP/1.1 200 OK`.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let rest = line.strip_prefix(b"HTTP/1.0 ").or_else(|| line.strip_prefix(b"HTTP/1.1 "))?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok().filter(|status| (100..600).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_is_an_answer() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503 No", Some(503)),
            ("HTTP/1.1 +20 OK", None),
            ("HTTP/2 200", None),
            ("HTTP/1.1 20", None),
            ("SSH-2.0-OpenSSH", None),
            ("", None),
        ] {
            assert_eq!(status(head.as_bytes()), expected, "{head}");
        }
    }
}
