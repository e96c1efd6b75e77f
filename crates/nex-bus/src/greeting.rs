//! What listens where no connection to NATS came about, by how it greets: a NATS server speaks first, one that begins with TLS and most
//! other servers do not.

use std::time::Duration;

use async_nats::ServerAddr;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for a connection, and for the first word on it.
const CONNECT: Duration = Duration::from_secs(1);
const FIRST_WORD: Duration = Duration::from_millis(500);

/// How a server greets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// Nobody takes the connection.
    Nobody,
    /// Somebody takes it and says nothing.
    Silence,
    /// As NATS does.
    Nats,
    /// In another way, which begins so.
    Other(String),
}

/// Connects to a server once more, and listens.
pub(crate) async fn of(server: &ServerAddr) -> Greeting {
    let address = (server.host().trim_start_matches('[').trim_end_matches(']'), server.port());
    let Ok(Ok(mut stream)) = timeout(CONNECT, TcpStream::connect(address)).await else { return Greeting::Nobody };
    let mut word = [0; 32];
    match timeout(FIRST_WORD, stream.read(&mut word)).await {
        Err(_late) => Greeting::Silence,
        Ok(Ok(0) | Err(_)) => Greeting::Other("nothing, and hung up".to_owned()),
        Ok(Ok(count)) => {
            let text = String::from_utf8_lossy(word.get(..count).unwrap_or_default());
            if text.starts_with("INFO ") {
                return Greeting::Nats;
            }
            // A stranger's bytes go to somebody's terminal.
            let harmless = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
            Greeting::Other(format!("'{}'", text.trim_end().chars().map(harmless).collect::<String>()))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// The greeting of a server that says this and waits.
    async fn of_one_that_says(word: Option<&'static [u8]>) -> Greeting {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server: ServerAddr = format!("nats://{}", listener.local_addr().unwrap()).parse().unwrap();
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            if let Some(word) = word {
                stream.write_all(word).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            greeting = of(&server) => greeting,
            () = served => unreachable!("it waits for ever"),
        }
    }

    #[tokio::test]
    async fn servers_are_told_apart_by_their_first_word() {
        assert_eq!(of_one_that_says(Some(b"INFO {}\r\n")).await, Greeting::Nats);
        assert_eq!(of_one_that_says(None).await, Greeting::Silence);
        assert_eq!(of_one_that_says(Some(b"SSH-2.0-x\x1b[2J\r\n")).await, Greeting::Other("'SSH-2.0-x?[2J'".to_owned()));
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(of(&format!("nats://{free}").parse().unwrap()).await, Greeting::Nobody);
    }
}
