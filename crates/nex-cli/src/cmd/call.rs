//! `nex call`: trigger a function and print its reply.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use nex_client::call::CallError;
use nex_protocol::subject::is_valid_pattern;
use serde_json::{Value, json};

use crate::check::Usage;
use crate::output::Output;
use crate::session::Session;

/// `nex call`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex call echojs hello              a function, by name
  nex call orders.new @order.json    a trigger subject, with a file
  date | nex call echojs             with what is piped in
  nex call echojs x --timeout 2s     wait two seconds at most")]
pub(crate) struct CallArgs {
    /// Trigger subject, or name of a function
    #[arg(value_name = "SUBJECT|FUNCTION")]
    target: String,
    /// The payload, or @file; without it what is piped in, `-` always reads standard input
    #[arg(value_name = "PAYLOAD", allow_hyphen_values = true)]
    payload: Option<String>,
}

/// Calls and prints the raw reply.
pub(crate) async fn run(args: &CallArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    if !is_valid_pattern(&args.target) || args.target.contains(['*', '>']) {
        return Err(Usage(format!("'{}' is no subject to call; next: leave out blanks and wildcards", args.target)).into());
    }
    let limit = session.client.nats().server_info().max_payload;
    let payload = in_time(args.payload.clone(), limit, session.work_timeout).await?;
    let (subject, reply) = match session.client.call(&args.target, payload.clone(), session.work_timeout).await {
        Err(CallError::NobodyListens(_)) => {
            let subject = trigger_of(&args.target, session).await?;
            let reply = session.client.call(&subject, payload, session.work_timeout).await?;
            (subject, reply)
        }
        other => (args.target.clone(), other?),
    };
    if output.is_json() { output.document(&as_json(&subject, &reply)) } else { output.reply(&reply) }
}

/// Finds a trigger subject of the function with this name.
async fn trigger_of(name: &str, session: &Session) -> anyhow::Result<String> {
    let nobody = || CallError::NobodyListens(name.to_owned());
    let token = super::stop::workload_token(name).map_err(|_not_a_name| nobody())?;
    let running = session.client.workloads(Some(token), session.discovery_timeout).await?;
    let mut triggers = running.iter().flat_map(|running| &running.workload.triggers);
    let callable = triggers.find(|subject| !subject.contains(['*', '>']) && subject.as_str() != name);
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

fn as_json(subject: &str, reply: &[u8]) -> Value {
    let value = serde_json::from_slice(reply).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(reply).into_owned()));
    json!({ "subject": subject, "bytes": reply.len(), "reply": value })
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
    fn a_json_reply_stays_json() {
        assert_eq!(as_json("a", b"{\"x\":1}")["reply"]["x"], 1);
        assert_eq!(as_json("a", b"plain")["reply"], "plain");
    }
}
