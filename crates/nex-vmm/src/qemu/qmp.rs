//! QMP, QEMU's command protocol: one JSON object a line, over a stream.
//!
//! *Trust:* a line is at most [`MAX_LINE`] long, and only [`MAX_EVENTS`] lines are read while waiting for an answer.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;

use crate::error::VmmError;
use crate::kind::VmmKind;
use crate::process::printable;

/// Longest line that is read, bytes.
const MAX_LINE: u64 = 64 * 1024;
/// How many events may come before an answer, or before the event waited for.
const MAX_EVENTS: usize = 1000;

/// The command connection to one QEMU; one command at a time.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
    /// The last `MIGRATION` event that ends a migration, if it came before an answer.
    migrated: Option<bool>,
}

/// A line that QEMU may send.
#[derive(Debug, PartialEq)]
pub(crate) enum Line {
    /// The greeting.
    Greeting(Version),
    /// The command was carried out.
    Return(Value),
    /// The command was refused.
    Refused(String),
    /// A migration has ended, successfully or not.
    Migrated(bool),
    /// Any other event.
    Event,
}

/// QEMU's version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Version(pub(crate) u64, pub(crate) u64);

/// Reads a line.
pub(crate) fn parse(line: &[u8]) -> Result<Line, String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("a line is no JSON: {error}"))?;
    let version = |part: &str| value.pointer(&format!("/QMP/version/qemu/{part}")).and_then(Value::as_u64);
    if let (Some(major), Some(minor)) = (version("major"), version("minor")) {
        return Ok(Line::Greeting(Version(major, minor)));
    }
    if let Some(answer) = value.get("return") {
        return Ok(Line::Return(answer.clone()));
    }
    if let Some(error) = value.get("error") {
        return Ok(Line::Refused(printable(error.get("desc").and_then(Value::as_str).unwrap_or("no reason given"), 500)));
    }
    match (value.get("event").and_then(Value::as_str), value.pointer("/data/status").and_then(Value::as_str)) {
        (Some("MIGRATION"), Some("completed")) => Ok(Line::Migrated(true)),
        (Some("MIGRATION"), Some("failed" | "cancelled")) => Ok(Line::Migrated(false)),
        (Some(_), _) => Ok(Line::Event),
        (None, _) => Err("a line is no greeting, answer or event".to_owned()),
    }
}

impl Qmp {
    /// Waits for the greeting and negotiates capabilities.
    pub(super) async fn open(stream: UnixStream) -> Result<Self, VmmError> {
        let mut qmp = Self { stream: BufReader::new(stream), migrated: None };
        match qmp.line().await? {
            Line::Greeting(_) => {}
            other => return Err(malformed(format!("{} is no greeting", printable(&format!("{other:?}"), 200)))),
        }
        qmp.execute("qmp_capabilities", &Value::Null).await?;
        Ok(qmp)
    }

    /// Carries out a command.
    pub(super) async fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, VmmError> {
        let line = command_line(command, arguments);
        self.stream.get_mut().write_all(&line).await.map_err(broken)?;
        self.answer(command).await
    }

    /// Passes QEMU a descriptor under a name.
    pub(super) async fn pass_fd(&mut self, name: &str, fd: OwnedFd) -> Result<(), VmmError> {
        let line = command_line("getfd", &json!({"fdname": name}));
        let stream = self.stream.get_ref();
        let send = || {
            let (fds, bytes) = ([fd.as_raw_fd()], [IoSlice::new(&line)]);
            let message = [ControlMessage::ScmRights(&fds)];
            sendmsg::<()>(stream.as_raw_fd(), &bytes, &message, MsgFlags::MSG_NOSIGNAL, None).map_err(io::Error::from)
        };
        let sent = stream.async_io(Interest::WRITABLE, send).await.map_err(broken)?;
        // The descriptor went with the first byte. A short write is unlikely for such a line but possible.
        let rest = line.get(sent..).unwrap_or_default();
        self.stream.get_mut().write_all(rest).await.map_err(broken)?;
        self.answer("getfd").await.map(drop)
    }

    /// Waits until the migration that was begun is over.
    pub(super) async fn migrated(&mut self) -> Result<(), VmmError> {
        for _ in 0..MAX_EVENTS {
            match self.migrated.take() {
                Some(true) => return Ok(()),
                Some(false) => return Err(self.migration_error().await),
                None => self.next_line().await.map(drop)?,
            }
        }
        Err(malformed("it sent too many events before an answer".to_owned()))
    }

    async fn migration_error(&mut self) -> VmmError {
        match self.execute("query-migrate", &Value::Null).await {
            Ok(answer) => {
                let reason = answer.get("error-desc").and_then(Value::as_str).unwrap_or("its log says more");
                refused("migration", printable(reason, 500))
            }
            Err(error) => error,
        }
    }

    async fn answer(&mut self, command: &str) -> Result<Value, VmmError> {
        for _ in 0..MAX_EVENTS {
            match self.next_line().await? {
                Line::Return(value) => return Ok(value),
                Line::Refused(message) => return Err(refused(command, message)),
                Line::Greeting(_) | Line::Migrated(_) | Line::Event => {}
            }
        }
        Err(malformed("it sent too many events before an answer".to_owned()))
    }

    /// Reads a line; remembers the end of a migration.
    async fn next_line(&mut self) -> Result<Line, VmmError> {
        let line = self.line().await?;
        if let Line::Migrated(succeeded) = line {
            self.migrated = Some(succeeded);
        }
        Ok(line)
    }

    async fn line(&mut self) -> Result<Line, VmmError> {
        let mut line = Vec::new();
        (&mut self.stream).take(MAX_LINE).read_until(b'\n', &mut line).await.map_err(broken)?;
        if line.last() != Some(&b'\n') {
            return Err(malformed(format!("a line of {} bytes has no end", line.len())));
        }
        parse(&line).map_err(malformed)
    }
}

fn command_line(command: &str, arguments: &Value) -> Vec<u8> {
    let line = match arguments {
        Value::Null => json!({"execute": command}),
        arguments => json!({"execute": command, "arguments": arguments}),
    };
    format!("{line}\n").into_bytes()
}

fn refused(request: &str, message: String) -> VmmError {
    VmmError::Refused { vmm: VmmKind::Qemu, request: request.to_owned(), message }
}

fn malformed(why: String) -> VmmError {
    VmmError::Malformed { vmm: VmmKind::Qemu, why }
}

#[expect(clippy::needless_pass_by_value, reason = "it is a map_err")]
fn broken(error: io::Error) -> VmmError {
    malformed(format!("the connection broke off: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_of_line_is_recognized() {
        let refused = |text: &str| Line::Refused(text.to_owned());
        for (line, expected) in [
            (r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}}}"#, Line::Greeting(Version(7, 2))),
            (r#"{"return": {"a": 1}}"#, Line::Return(json!({"a": 1}))),
            (r#"{"error": {"class": "GenericError", "desc": "no\u0007"}}"#, refused("no")),
            (r#"{"error": 7}"#, refused("no reason given")),
            (r#"{"event": "MIGRATION", "data": {"status": "active"}}"#, Line::Event),
            (r#"{"event": "MIGRATION", "data": {"status": "completed"}}"#, Line::Migrated(true)),
            (r#"{"event": "MIGRATION", "data": {"status": "failed"}}"#, Line::Migrated(false)),
            (r#"{"event": "STOP"}"#, Line::Event),
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(expected), "{line}");
        }
        assert!(parse(b"{}").is_err() && parse(b"").is_err());
    }

    #[tokio::test]
    async fn events_before_an_answer_are_skipped_and_the_end_of_a_migration_is_kept() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut qmp = Qmp { stream: BufReader::new(ours), migrated: None };
        let (mut read, mut write) = theirs.into_split();
        write.write_all(b"{\"event\":\"STOP\"}\n{\"event\":\"MIGRATION\",\"data\":{\"status\":\"completed\"}}\n").await.unwrap();
        write.write_all(b"{\"return\":1}\n").await.unwrap();
        assert_eq!(qmp.execute("cont", &Value::Null).await.unwrap(), json!(1));
        qmp.migrated().await.unwrap();
        let mut sent = [0; 19];
        read.read_exact(&mut sent).await.unwrap();
        assert_eq!(&sent, b"{\"execute\":\"cont\"}\n");
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut qmp = Qmp { stream: BufReader::new(ours), migrated: None };
        let (answer, _) = tokio::join!(qmp.line(), async {
            let _cut_off = theirs.write_all(&vec![b' '; 65 * 1024]).await;
        });
        assert!(matches!(answer, Err(VmmError::Malformed { .. })), "{answer:?}");
    }

    proptest! {
        #[test]
        fn no_line_panics_the_parser(line in any::<Vec<u8>>()) {
            drop(parse(&line));
        }
    }
}
