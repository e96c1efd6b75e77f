//! A registry of images for tests, honest or not. It asks for a token and gives one to all but those who ask for `private/…` without the
//! login [`LOGIN`].

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::BASE64;

use crate::image::Image;

/// Name and password for what is private.
pub const LOGIN: (&str, &str) = ("me", "let me in");
const TOKEN: &str = "let-me-in";

/// The login as files and headers have it.
#[must_use]
pub fn login() -> String {
    BASE64.encode(format!("{}:{}", LOGIN.0, LOGIN.1).as_bytes())
}

/// How a registry behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// As it should.
    Honest,
    /// Breaks the connection after each so many bytes of a blob, and gives parts.
    Breaks(usize),
    /// Breaks the connection after so many bytes of a blob when it is asked for the first time, and gives no parts.
    BreaksOnce(usize),
    /// Gives blobs whose last byte is another.
    Lies,
    /// Sends more of a blob than there is of it.
    Endless,
    /// Refuses every token.
    NeverBelieves,
    /// Sends everybody away, to itself.
    Redirects,
}

/// A running registry; it ends with the test.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

struct Content {
    address: SocketAddr,
    blobs: BTreeMap<String, Vec<u8>>,
    /// Digests in hexadecimal, by tag.
    tags: BTreeMap<String, String>,
    manners: Manners,
    requests: Arc<Mutex<Vec<String>>>,
}

#[expect(clippy::missing_panics_doc, clippy::expect_used, reason = "a test that has no network cannot go on")]
impl Registry {
    /// Serves these blobs, by their digests in hexadecimal, in every repository.
    #[must_use]
    pub fn serve(blobs: BTreeMap<String, Vec<u8>>, tags: BTreeMap<String, String>, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let content = Arc::new(Content { address, blobs, tags, manners, requests: Arc::clone(&requests) });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let content = Arc::clone(&content);
                // Whoever asked may have gone.
                std::thread::spawn(move || drop(content.answer(stream)));
            }
        });
        Self { address, requests }
    }

    /// Serves one image as `v1`.
    #[must_use]
    pub fn of(image: &Image, manners: Manners) -> Self {
        let tags = BTreeMap::from([("v1".to_owned(), image.digest().to_owned())]);
        Self::serve(image.blobs().iter().cloned().collect(), tags, manners)
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Paths of the requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Content {
    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        for line in BufReader::new(stream.try_clone()?).lines() {
            match line? {
                line if line.is_empty() => break,
                line => head.push(line),
            }
        }
        let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !requests.contains(&path);
        requests.push(path.clone());
        drop(requests);
        let header = |name: &str| {
            head.iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let mut reply = Reply(stream);
        if path.starts_with("/token?") {
            let basic = format!("Basic {}", login());
            if path.contains("private") && header("authorization") != Some(basic) {
                return reply.send("401 Unauthorized", "", b"");
            }
            return reply.send("200 OK", "", format!(r#"{{"token":"{TOKEN}"}}"#).as_bytes());
        }
        if self.manners == Manners::NeverBelieves || header("authorization") != Some(format!("Bearer {TOKEN}")) {
            let at = self.address;
            let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{at}/token\",service=\"here\"\r\n");
            return reply.send("401 Unauthorized", &challenge, b"{}");
        }
        if self.manners == Manners::Redirects {
            return reply.send("307 Temporary Redirect", &format!("Location: http://{}{path}/\r\n", self.address), b"");
        }
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let digest = self.tags.get(name).map_or(name, String::as_str).trim_start_matches("sha256:");
        let Some(bytes) = self.blobs.get(digest) else { return reply.send("404 Not Found", "", b"{}") };
        if !path.contains("/blobs/") {
            let kind = if bytes.windows(11).any(|part| part == b"\"manifests\"") { "index" } else { "manifest" };
            return reply.send("200 OK", &format!("Content-Type: application/vnd.oci.image.{kind}.v1+json\r\n"), bytes);
        }
        let from = header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        self.answer_blob(&mut reply, bytes, (from, is_first))
    }

    fn answer_blob(&self, reply: &mut Reply, bytes: &[u8], (from, is_first): (Option<usize>, bool)) -> std::io::Result<()> {
        let len = bytes.len();
        match self.manners {
            Manners::Breaks(after) => {
                let (status, rest) = match from {
                    Some(from) => ("206 Partial Content", bytes.get(from..).unwrap_or_default()),
                    None => ("200 OK", bytes),
                };
                reply.send_part(status, rest.len(), rest.get(..after).unwrap_or(rest))
            }
            Manners::BreaksOnce(after) if is_first => reply.send_part("200 OK", len, bytes.get(..after).unwrap_or(bytes)),
            Manners::Lies => {
                let (_, rest) = bytes.split_last().unwrap_or((&0, &[]));
                reply.send("200 OK", "", &[rest, b"!"].concat())
            }
            Manners::Endless => {
                reply.send_part("200 OK", 1 << 40, bytes)?;
                loop {
                    reply.0.write_all(&[0; 1 << 12])?;
                }
            }
            _ => reply.send("200 OK", "", bytes),
        }
    }
}

struct Reply(TcpStream);

impl Reply {
    fn send(&mut self, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
        write!(self.0, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
        self.0.write_all(body)
    }

    /// Says it has so many bytes, and sends these.
    fn send_part(&mut self, status: &str, len: usize, body: &[u8]) -> std::io::Result<()> {
        write!(self.0, "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n")?;
        self.0.write_all(body)
    }
}
