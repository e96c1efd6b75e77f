//! What `nex devrun --watch` prints: for people lines, for programs one JSON object a line, told apart by their member `event`.

use std::path::Path;

use jiff::Timestamp;
use nex_client::watch::LogEntry;
use nex_protocol::control::LastExit;
use serde_json::{Value, json};

use super::turn::{Live, Outcome, Turned};
use crate::cmd::logs;
use crate::cmd::ps::next_commands;
use crate::cmd::stop::StopTarget;
use crate::exit::Exit;
use crate::output::{Output, failure_as_json};

/// What is told, and where.
pub(super) struct Told<'a> {
    pub(super) file: &'a Path,
    pub(super) is_default_trigger: bool,
    /// Flags that suggested commands repeat.
    pub(super) repeated: &'a str,
    /// Whether it has not been live yet.
    pub(super) is_first: bool,
    pub(super) output: &'a mut Output,
}

impl Told<'_> {
    /// What came of a save.
    pub(super) fn turned(&mut self, turned: Turned, live: &Live) -> anyhow::Result<()> {
        let Turned { outcome, took } = turned;
        let (file, ms) = (self.file.display().to_string(), took.as_millis());
        match outcome {
            Ok(Outcome::Live { started, replaced }) => {
                let nodes: Vec<_> = started.iter().map(|copy| copy.node.to_string()).collect();
                let artifact = &live.deployment().artifact;
                self.event("live", || {
                    json!({
                        "name": live.name(), "ids": ids(&started), "node_ids": nodes, "ms": u64::try_from(ms).unwrap_or(u64::MAX),
                        "digest": artifact.digest, "bytes": artifact.bytes, "replaced": ids(&replaced),
                        "triggers": live.deployment().triggers.iter().cloned().chain(live.deployment().kinds()).collect::<Vec<_>>(),
                    })
                })?;
                if !self.output.is_json() {
                    self.live(&started, live, &format!("{file} is live, {ms} ms after it was saved"))?;
                }
                self.is_first = false;
                Ok(())
            }
            Ok(Outcome::Unchanged) => {
                self.event("unchanged", || json!({}))?;
                self.output.note(format_args!("{file} was saved as it was; nothing to deploy"));
                Ok(())
            }
            Err(error) => self.failed(error, live.running()),
        }
    }

    fn live(&mut self, started: &[StopTarget], live: &Live, saved: &str) -> anyhow::Result<()> {
        let style = self.output.style();
        if !self.is_first {
            return self.output.line(format_args!(
                "{} {}",
                style.good(saved),
                style.dim(&format!("({})", ids(started).join(", ")))
            ));
        }
        for StopTarget { node, id, name, .. } in started {
            self.output.line(format_args!(
                "🚀 Workload '{name}' accepted. You can now refer to this workload with ID: {id} on node {node}"
            ))?;
        }
        if self.is_default_trigger {
            self.output.line(format_args!("No trigger subject was given, so its name calls it: {}", live.name()))?;
        }
        let trigger = live.deployment().triggers.iter().find(|subject| !subject.contains(['*', '>'])).map(String::as_str);
        let id = started.last().map(|copy| copy.id.to_string()).unwrap_or_default();
        self.output.line(next_commands(live.name().as_str(), &id, trigger, self.repeated, style))?;
        self.output.line(style.dim(&format!("Watching {}: each save is deployed, and Ctrl-C stops it", self.file.display())))
    }

    fn failed(&mut self, error: anyhow::Error, running: &[StopTarget]) -> anyhow::Result<()> {
        self.event("failed", || {
            let mut told = failure_as_json(&error, None);
            told.insert("running".to_owned(), json!(ids(running)));
            Value::from(told)
        })?;
        if self.output.is_json() {
            return Ok(());
        }
        let file = self.file.display();
        let what = match running {
            [] => format!("{file} is not live; it is deployed again when it is saved"),
            old => format!("{file} is not live; what ran before still runs: {}", ids(old).join(", ")),
        };
        let code = Exit::of(&error).code();
        self.output.failure(&error.context(what), code, None);
        Ok(())
    }

    /// The file is not there any more.
    pub(super) fn gone(&mut self) -> anyhow::Result<()> {
        self.event("gone", || json!({}))?;
        self.output
            .note(format_args!("{} is gone; what runs stays, and the file is deployed when it is back", self.file.display()));
        Ok(())
    }

    /// A copy has ended by itself, or somebody else has stopped it.
    pub(super) fn ended(&mut self, copy: &StopTarget, exit: &LastExit) -> anyhow::Result<()> {
        let LastExit { code, cause, reason, .. } = exit;
        let StopTarget { id, name, .. } = copy;
        self.event("ended", || json!({"id": id, "exit_code": code, "cause": cause, "reason": reason}))?;
        self.output.note(format_args!(
            "Workload '{name}' ({id}) has ended with exit code {code} ({cause}); the next save starts it again"
        ));
        Ok(())
    }

    /// A copy was stopped here.
    pub(super) fn stopped(&mut self, copy: &StopTarget) -> anyhow::Result<()> {
        let StopTarget { node, id, name, .. } = copy;
        self.event("stopped", || json!({"id": id, "node_id": node}))?;
        if self.output.is_json() {
            return Ok(());
        }
        self.output.line(format_args!("✅ Workload '{name}' stopped. ({id} on node {node})"))
    }

    /// Something that the workload wrote, or its node about it.
    pub(super) fn line(&mut self, entry: &LogEntry) -> anyhow::Result<()> {
        if !self.output.is_json() {
            return logs::print(entry, Timestamp::now(), self.output);
        }
        self.event("log", || logs::as_json(entry, Timestamp::now()))
    }

    /// An event for a program; nothing for people.
    fn event(&mut self, kind: &str, members: impl FnOnce() -> Value) -> anyhow::Result<()> {
        if !self.output.is_json() {
            return Ok(());
        }
        let mut told = members();
        if let Some(told) = told.as_object_mut() {
            told.insert("event".to_owned(), kind.into());
        }
        self.output.json(&told)
    }
}

fn ids(copies: &[StopTarget]) -> Vec<String> {
    copies.iter().map(|copy| copy.id.to_string()).collect()
}
