//! `nex call`: trigger a function and print its reply.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use clap::Args;
use data_encoding::BASE64;
use nex_client::call::{CallError, Reply};
use nex_protocol::subject::is_valid_pattern;
use serde_json::{Value, json};

use crate::check::Usage;
use crate::output::Output;
use crate::session::Session;
use crate::style::harmless;

/// `nex call`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex call echojs hello              a function, by name
  nex call orders.new @order.json    a trigger subject, with a file
  date | nex call echojs             with what is piped in
  nex call orders.new x -H 'Trace: 1' -i  with a header, and with those of the reply
  nex call echojs x --timeout 2s     wait two seconds at most")]
pub(crate) struct CallArgs {
    /// Trigger subject, or name of a function
    #[arg(value_name = "SUBJECT|FUNCTION")]
    target: String,
    /// The payload, or @file; without it what is piped in, `-` always reads standard input
    #[arg(value_name = "PAYLOAD", allow_hyphen_values = true)]
    payload: Option<String>,
    /// Header of the message, Name: value; repeatable
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Also print the headers of the reply and how long it took, to standard error
    #[arg(long, short)]
    include: bool,
    /// Print the reply and nothing else, as without this flag
    #[arg(long, conflicts_with_all = ["json", "include"])]
    raw: bool,
}

/// Parses a header as NATS takes it: a token, and a value of one line.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| "expected Name: value".to_owned())?;
    let name = name.trim();
    if name.parse::<HeaderName>().is_err() || name.is_empty() || value.chars().any(char::is_control) {
        return Err("expected Name: value, the name without blanks, the value on one line".to_owned());
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// Calls and prints the raw reply.
pub(crate) async fn run(args: &CallArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    if !is_valid_pattern(&args.target) || args.target.contains(['*', '>']) {
        return Err(Usage(format!("'{}' is no subject to call; next: leave out blanks and wildcards", args.target)).into());
    }
    let limit = session.client.nats().server_info().max_payload;
    let payload = in_time(args.payload.clone(), limit, session.work_timeout).await?;
    let mut headers = HeaderMap::new();
    for (name, value) in &args.headers {
        headers.append(name.as_str(), value.as_str());
    }
    let timeout = session.work_timeout;
    let call = |subject| session.client.call_with_headers(subject, headers.clone(), payload.clone(), timeout);
    let mut began = Instant::now();
    let (subject, reply) = match call(&args.target).await {
        Err(CallError::NobodyListens(_)) => {
            let subject = trigger_of(&args.target, session).await?;
            began = Instant::now();
            let reply = call(&subject).await?;
            (subject, reply)
        }
        other => (args.target.clone(), other?),
    };
    let took = began.elapsed();
    if output.is_json() {
        return output.document(&as_json(&subject, &reply, took));
    }
    if args.include {
        for (name, values) in reply.headers.iter() {
            for value in values {
                output.note(format_args!("{}: {}", harmless(name.as_ref()), harmless(value.as_str())));
            }
        }
        output.note(output.style().dim(&format!("{} bytes in {took:.1?}", reply.payload.len())));
    }
    output.reply(&reply.payload)
}

/// Finds a trigger subject of the function with this name.
async fn trigger_of(name: &str, session: &Session) -> anyhow::Result<String> {
    let nobody = || CallError::NobodyListens(name.to_owned());
    let token = super::stop::workload_token(name).map_err(|_not_a_name| nobody())?;
    let running = session.client.workloads(Some(token), session.discovery_timeout).await?;
    let mut triggers = running.iter().flat_map(|running| &running.workload.triggers);
    let callable = triggers.find(|subject| !subject.contains(['*', '>', ':']) && subject.as_str() != name);
    Ok(callable.ok_or_else(nobody)?.clone())
}

/// The payload, which may come from a standard input that nobody writes to. It is read on a thread that the end of this process ends too.
async fn in_time(given: Option<String>, limit: usize, timeout: Duration) -> anyhow::Result<Bytes> {
    let (read, is_read) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("payload".into()).spawn(move || read.send(payload(given.as_deref(), limit)).ok())?;
    let late = || {
        let next = "give the payload as an argument, or `< /dev/null` for none";
        Usage(format!("standard input is open and was not read to its end within {timeout:?}; next: {next}"))
    };
    tokio::time::timeout(timeout, is_read).await.map_err(|_elapsed| late())?.context("the payload was not read")?
}

fn payload(given: Option<&str>, limit: usize) -> anyhow::Result<Bytes> {
    let bytes = match given {
        None if std::io::stdin().is_terminal() => Vec::new(),
        None | Some("-") => bounded(std::io::stdin().lock(), limit).context("cannot read the payload from standard input")?,
        Some(text) => match text.strip_prefix('@') {
            Some(path) => {
                let file = std::fs::File::open(Path::new(path));
                let read = file.and_then(|file| bounded(file, limit));
                read.with_context(|| format!("cannot read the payload from {path}; next: check the path"))?
            }
            None => text.as_bytes().to_vec(),
        },
    };
    if bytes.len() > limit {
        return Err(Usage(format!("the payload is larger than the {limit} bytes the NATS server takes; next: send less")).into());
    }
    Ok(bytes.into())
}

/// Reads one byte more than the limit, so that the caller detects an excess.
fn bounded(reader: impl std::io::Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The reply as a value where it is JSON, as a string where it is text, else in base64.
fn as_json(subject: &str, reply: &Reply, took: Duration) -> Value {
    let bytes = &reply.payload;
    let value = serde_json::from_slice(bytes).ok().or_else(|| std::str::from_utf8(bytes).ok().map(Value::from));
    let of = |values: &[HeaderValue]| values.iter().map(|value| value.as_str().to_owned()).collect::<Vec<_>>();
    let headers: BTreeMap<String, Vec<String>> =
        reply.headers.iter().map(|(name, values)| (name.to_string(), of(values))).collect();
    let mut told = serde_json::Map::new();
    told.insert("subject".into(), subject.into());
    told.insert("bytes".into(), bytes.len().into());
    if value.is_none() {
        told.insert("reply_base64".into(), BASE64.encode(bytes).into());
    }
    told.insert("reply".into(), value.into());
    told.insert("headers".into(), json!(headers));
    told.insert("took_ms".into(), ((took.as_secs_f64() * 1e6).round() / 1e3).into());
    Value::Object(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_a_text_or_a_file_and_bounded() {
        assert_eq!(payload(Some("hi"), 10).unwrap(), "hi");
        assert!(payload(Some("too long"), 3).is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0, 255]).unwrap();
        let at_file = format!("@{}", file.path().display());
        assert_eq!(payload(Some(&at_file), 10).unwrap(), &[0, 255][..]);
        assert!(payload(Some(&at_file), 1).is_err());
        assert!(payload(Some("@/no/such/file"), 1).is_err());
    }

    #[test]
    fn a_reply_is_json_text_or_base64() {
        let told = |bytes: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("Trace", "1");
            as_json("a", &Reply { payload: Bytes::from_static(bytes), headers }, Duration::from_millis(2))
        };
        assert_eq!(told(b"{\"x\":1}")["reply"]["x"], 1);
        assert_eq!((&told(b"plain")["reply"], &told(b"")["reply"]), (&json!("plain"), &json!("")));
        assert_eq!((&told(b"\xff")["reply"], &told(b"\xff")["reply_base64"]), (&Value::Null, &json!("/w==")));
        assert_eq!(told(b"null").get("reply_base64"), None);
        assert_eq!((&told(b"x")["headers"]["Trace"][0], &told(b"x")["took_ms"]), (&json!("1"), &json!(2.0)));
    }

    #[test]
    fn a_header_has_a_name_and_one_line() {
        assert_eq!(header("Trace-Id: a b"), Ok(("Trace-Id".to_owned(), "a b".to_owned())));
        for wrong in ["Trace", ": x", "a b: x", "a: x\ny"] {
            assert!(header(wrong).is_err(), "{wrong}");
        }
    }
}
