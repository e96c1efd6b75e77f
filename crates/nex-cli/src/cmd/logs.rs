//! `nex logs`: prints output of workloads as it is written.

use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use nex_client::discover::{Ended, Found};
use nex_client::watch::{LogEntry, LogFilter};
use nex_protocol::control::WorkloadPingRequest;
use nex_protocol::id::WorkloadId;
use nex_protocol::log::{Level, LogLine};
use nex_protocol::subject::LogSource;
use serde_json::json;

use crate::output::Output;
use crate::session::Session;
use crate::style::{Style, harmless};

/// The lowest level to show.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum LevelName {
    Debug,
    Info,
    Warn,
    Error,
}

impl From<LevelName> for Level {
    fn from(name: LevelName) -> Self {
        match name {
            LevelName::Debug => Self::Debug,
            LevelName::Info => Self::Info,
            LevelName::Warn => Self::Warn,
            LevelName::Error => Self::Error,
        }
    }
}

/// `nex logs`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex logs                          everything in the namespace
  nex logs echojs                   one workload, by name or id
  nex logs echojs --tail 20         what it has said last, also if it has ended
  nex logs --level error --json     failures, for a program")]
pub(crate) struct LogsArgs {
    /// Only the workload with this id or name
    #[arg(value_name = "ID|NAME")]
    workload: Option<String>,
    /// Only this node, by id
    #[arg(long, value_name = "NODE", default_value = "*", hide_default_value = true)]
    node: String,
    /// Only workloads of this name
    #[arg(
        long = "workload_name",
        visible_alias = "workload-name",
        value_name = "NAME",
        default_value = "*",
        hide_default_value = true
    )]
    workload_name: String,
    /// Only this workload, by id
    #[arg(
        long = "workload_id",
        visible_alias = "workload-id",
        value_name = "ID",
        default_value = "*",
        hide_default_value = true
    )]
    workload_id: String,
    /// Only lines of this level and more serious ones
    #[arg(long, default_value = "debug", ignore_case = true)]
    level: LevelName,
    /// Print the last lines, so many of each workload, as far as its node has kept them, also of workloads that have ended lately; then end
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u16).range(1..))]
    tail: Option<u16>,
}

impl LogsArgs {
    fn filter(&self) -> LogFilter {
        let given = |text: &String| (text != "*").then(|| text.clone());
        let named = self.workload.as_ref().filter(|text| text.as_str() != "*");
        let (id, name) = match named {
            Some(text) if text.parse::<WorkloadId>().is_ok() => (Some(text.clone()), None),
            other => (None, other.cloned()),
        };
        LogFilter {
            node: given(&self.node),
            workload_name: name.or_else(|| given(&self.workload_name)),
            workload_id: id.or_else(|| given(&self.workload_id)),
            level: Some(self.level.into()),
        }
    }
}

/// Prints until interrupted, or what was said last.
pub(crate) async fn run(args: &LogsArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let wanted = args.workload.as_deref().filter(|text| *text != "*").map(super::stop::workload_token).transpose()?;
    if wanted.is_some() || args.tail.is_some() {
        let more = WorkloadPingRequest { ended: true, tail: args.tail.map(usize::from) };
        // Who may watch the logs may ask what runs, and not about each by its name.
        let asked = wanted.filter(|_| args.tail.is_some());
        let mut found = session.client.find(asked, &more, session.discovery_timeout).await?;
        if let Some(wanted) = wanted {
            let is_it = |name: &str, id: &str| name.eq_ignore_ascii_case(wanted) || id == wanted;
            found.running.retain(|it| is_it(&it.workload.name, &it.workload.id));
            found.ended.retain(|it| is_it(&it.workload.name, &it.workload.id));
        }
        if let Some(wanted) = wanted.filter(|_| found.running.is_empty() && (args.tail.is_none() || found.ended.is_empty())) {
            return Err(nothing(wanted, &found, session).await?);
        }
        if args.tail.is_some() {
            return print_tails(args, found, session, output);
        }
    }
    let mut lines = session.client.logs(args.filter()).await?;
    output.note(output.style().dim(&format!("Watching the logs of namespace {}; interrupt to end", session.client.namespace())));
    let style = output.style();
    while let Some(entry) = lines.next().await {
        if output.is_json() {
            output.json(&as_json(&entry, Timestamp::now()))?;
        } else {
            output.line(as_line(&entry, &Zoned::now(), style))?;
        }
    }
    anyhow::bail!("the connection to NATS is closed")
}

/// Why there is nothing to watch, and what there is.
async fn nothing(wanted: &str, found: &Found, session: &Session) -> anyhow::Result<anyhow::Error> {
    let namespace = session.client.namespace();
    if let Some(Ended { workload, .. }) = found.ended.iter().max_by_key(|ended| ended.workload.exit.at) {
        let (code, ago) = (workload.exit.code, super::ps::ago(workload.exit.at, Timestamp::now()));
        let next = format!("see what it said with `nex logs {wanted} --tail 20`");
        return Ok(anyhow::anyhow!("'{wanted}' does not run: it ended {ago} ago with exit code {code}; next: {next}"));
    }
    let running = session.client.workloads(None, session.discovery_timeout).await?;
    let mut names: Vec<&str> = running.iter().map(|running| running.workload.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let what = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let next = format!("to wait for it, `nex logs --workload_name {wanted}`");
    Ok(anyhow::anyhow!("nothing in namespace {namespace} is called '{wanted}'; what runs: {what}; next: {next}"))
}

/// Prints the last lines of all that was found, in the order in which they were written.
fn print_tails(args: &LogsArgs, found: Found, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let (filter, namespace, mut lines) = (args.filter(), session.client.namespace(), Vec::new());
    let running = found.running.into_iter().map(|it| (it.node, it.workload.name, it.workload.id, it.workload.tail));
    let ended = found.ended.into_iter().map(|it| (it.node, it.workload.name, it.workload.id, it.workload.tail));
    for (node, name, id, tail) in ended.chain(running) {
        let source = LogSource { namespace: namespace.to_string(), node: node.to_string(), name, id: id.clone() };
        lines.extend(tail.into_iter().map(|line| {
            let entry = LogEntry { source: source.clone(), line: LogLine { text: line.text, level: line.level, id: id.clone() } };
            (Timestamp::from_second(line.at).unwrap_or_default(), entry)
        }));
    }
    lines.retain(|(_, entry)| {
        let named = |own: &str| args.workload.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(own));
        let by_flags = LogFilter { workload_name: None, workload_id: None, ..filter.clone() };
        let is_wanted = args.workload.is_some() && (named(&entry.source.name) || named(&entry.source.id));
        if args.workload.is_some() { is_wanted && by_flags.passes(entry) } else { filter.passes(entry) }
    });
    lines.sort_by_key(|(at, _)| *at);
    let style = output.style();
    for (at, entry) in lines {
        if output.is_json() {
            output.json(&as_json(&entry, at))?;
        } else {
            output.line(as_line(&entry, &at.to_zoned(TimeZone::system()), style))?;
        }
    }
    Ok(())
}

fn as_json(entry: &LogEntry, at: Timestamp) -> serde_json::Value {
    let LogEntry { source, line } = entry;
    json!({
        "time": at.to_string(), "namespace": source.namespace, "node_id": source.node,
        "workload_name": source.name, "workload_id": source.id, "level": line.level, "text": line.text.trim_end(),
    })
}

/// `15:04:05 INFO  echojs/abcd the text`; the end of the id distinguishes workloads with the same name.
fn as_line(entry: &LogEntry, now: &Zoned, style: Style) -> String {
    let LogEntry { source, line } = entry;
    let level = format!("{:<5}", line.level.as_str());
    let level = match line.level {
        Level::Error => style.error(&level),
        Level::Warn => style.warn(&level),
        Level::Info => style.good(&level),
        Level::Debug => style.dim(&level),
    };
    let id: String = source.id.chars().rev().take(4).collect::<Vec<_>>().into_iter().rev().collect();
    let name = harmless(&source.name).into_owned();
    let who = format!("{}{}", style.name(&name), style.dim(&format!("/{}", harmless(&id))));
    let time = style.dim(&now.strftime("%H:%M:%S").to_string());
    format!("{time} {level} {who} {}", harmless(line.text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> LogEntry {
        let id = "cpv1o2s0tq5c73f0abcd".to_owned();
        let source = LogSource { namespace: "default".into(), node: "N1".into(), name: "echojs".into(), id: id.clone() };
        LogEntry { source, line: LogLine { text: text.into(), level: Level::Warn, id } }
    }

    #[test]
    fn a_line_has_time_level_and_workload() {
        let now: Zoned = "2026-02-03T15:04:05+00:00[UTC]".parse().unwrap();
        let text = as_line(&entry("listening\x1b[2J\n"), &now, Style::new(false));
        assert_eq!(text, "15:04:05 WARN  echojs/abcd listening\u{fffd}[2J");
        assert!(as_line(&entry("x"), &now, Style::new(true)).contains("\x1b["));
        assert_eq!(as_json(&entry("x\n"), Timestamp::UNIX_EPOCH)["level"], "WARN");
    }

    #[test]
    fn one_word_is_an_id_or_a_name() {
        let args = |workload: Option<&str>, name: &str| LogsArgs {
            workload: workload.map(str::to_owned),
            node: "*".into(),
            workload_name: name.into(),
            workload_id: "*".into(),
            level: LevelName::Info,
            tail: None,
        };
        let by_id = args(Some("cpv1o2s0tq5c73f0abcd"), "*").filter();
        assert_eq!((by_id.workload_id.is_some(), by_id.workload_name), (true, None));
        assert_eq!(args(Some("echo"), "*").filter().workload_name.as_deref(), Some("echo"));
        assert_eq!(args(None, "echo").filter().workload_name.as_deref(), Some("echo"));
        assert_eq!(args(None, "*").filter(), LogFilter { level: Some(Level::Info), ..Default::default() });
    }
}
