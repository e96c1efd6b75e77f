//! `nex logs`: prints output of workloads, as nodes have kept it and as it is written.

use std::collections::{BTreeMap, VecDeque};

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use futures::StreamExt as _;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use nex_client::discover::{Ended, Found};
use nex_client::watch::{LogEntry, LogFilter};
use nex_protocol::control::{HistoryLine, HistoryRequest, WorkloadPingRequest};
use nex_protocol::id::{NodeId, WorkloadId};
use nex_protocol::log::{Level, LogLine};
use nex_protocol::subject::LogSource;
use serde_json::json;

use super::previous::Run;
use crate::complete;
use crate::kept::{self, Since};
use crate::node_ref::NodeRef;
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
  nex logs echojs --since 10m -f    the last ten minutes, and what follows
  nex logs echojs --previous        what it said before it was started again
  nex logs --level error --json     failures, for a program")]
pub(crate) struct LogsArgs {
    /// Only the workload with this id or name
    #[arg(value_name = "ID|NAME", add = ArgValueCompleter::new(complete::workloads))]
    workload: Option<String>,
    /// Only this node, by id or name
    #[arg(long, value_name = "NODE", default_value = "*", hide_default_value = true, add = ArgValueCompleter::new(complete::nodes))]
    node: NodeRef,
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
    /// Print the last lines that nodes have kept, so many, also of workloads that have ended; then end
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u16).range(1..))]
    tail: Option<u16>,
    /// Print the lines that nodes have kept from a time on: how long ago (10m, 1d), or a time of RFC 3339; then end
    #[arg(long, value_name = "TIME", value_parser = kept::since)]
    since: Option<Since>,
    /// Go on with what is written from now on; without --since or --tail it is what happens anyway
    #[arg(long, short)]
    follow: bool,
    /// Print the lines of the run before the last start
    #[arg(long, requires = "workload", conflicts_with = "follow")]
    previous: bool,
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
            node: None,
            workload_name: name.or_else(|| given(&self.workload_name)),
            workload_id: id.or_else(|| given(&self.workload_id)),
            level: Some(self.level.into()),
        }
    }
}

/// Prints what was kept, or until interrupted, or both.
pub(crate) async fn run(args: &LogsArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let wanted = args.workload.as_deref().filter(|text| *text != "*").map(super::stop::workload_token).transpose()?;
    let is_kept = args.since.is_some() || args.tail.is_some() || args.previous;
    let node = match &args.node {
        NodeRef::Name(all) if all == "*" => None,
        node => Some(node.resolve(session).await?),
    };
    let filter = LogFilter { node: node.as_ref().map(ToString::to_string), ..args.filter() };
    // It listens before it asks, so that nothing is said in between.
    let live = if is_kept && !args.follow { None } else { Some(session.client.logs(filter).await?) };
    let mut until = BTreeMap::new();
    if is_kept {
        let (printed, asked) = print_kept(args, node.as_ref(), session, output).await?;
        if let Some(wanted) = wanted.filter(|_| printed == 0) {
            let found = find(wanted, session).await?;
            if found.running.is_empty() && found.ended.is_empty() {
                return Err(nothing(wanted, &found, session).await?);
            }
        }
        until = asked;
    } else if let Some(wanted) = wanted {
        let found = find(wanted, session).await?;
        if found.running.is_empty() {
            return Err(nothing(wanted, &found, session).await?);
        }
    }
    let Some(mut lines) = live else { return Ok(()) };
    output.note(output.style().dim(&watching(args, is_kept, session)));
    let style = output.style();
    while let Some(entry) = lines.next().await {
        let is_printed = |last: &u64| entry.line.seq.is_some_and(|seq| seq <= *last);
        if until.get(&entry.source.node).is_some_and(is_printed) {
            continue;
        }
        if output.is_json() {
            output.json(&as_json(&entry, Timestamp::now()))?;
        } else {
            output.line(as_line(&entry, &Zoned::now(), style))?;
        }
    }
    anyhow::bail!("the connection to NATS is closed")
}

/// What is watched, and where to see what was said before.
fn watching(args: &LogsArgs, is_kept: bool, session: &Session) -> String {
    let whose = match args.workload.as_deref() {
        Some(workload) => format!("of '{workload}'"),
        None => format!("of namespace {}", session.client.namespace()),
    };
    let workload = args.workload.as_deref().map(|workload| format!(" {workload}")).unwrap_or_default();
    let before = format!("; what was said before: nex{} logs{workload} --tail 20", session.repeated);
    format!("Watching the logs {whose}{}; interrupt to end", if is_kept { "" } else { &before })
}

/// What runs or has ended lately under a name or id. Who may watch the logs may ask what runs, and not about each by its name.
async fn find(wanted: &str, session: &Session) -> anyhow::Result<Found> {
    let more = WorkloadPingRequest { ended: true, ..WorkloadPingRequest::default() };
    let mut found = session.client.find(None, &more, session.discovery_timeout).await?;
    let is_it = |name: &str, id: &str| name.eq_ignore_ascii_case(wanted) || id == wanted;
    found.running.retain(|it| is_it(&it.workload.name, &it.workload.id));
    found.ended.retain(|it| is_it(&it.workload.name, &it.workload.id));
    Ok(found)
}

/// Prints the lines that nodes have kept; says how many, and up to which number each node was asked.
async fn print_kept(
    args: &LogsArgs,
    only: Option<&NodeId>,
    session: &Session,
    output: &mut Output,
) -> anyhow::Result<(usize, BTreeMap<String, u64>)> {
    let mut nodes = kept::nodes(session).await?;
    nodes.retain(|node| only.is_none_or(|only| only == node));
    if let Some(only) = only.filter(|_| nodes.is_empty()) {
        anyhow::bail!("node {only} does not answer; next: see those that do with `nex node ls`");
    }
    let filter = args.filter();
    let mut request = HistoryRequest {
        since_ms: args.since.map(|since| since.millis(Timestamp::now())),
        tail: args.tail.map(usize::from),
        workload: filter.workload_id.clone().or_else(|| filter.workload_name.clone()),
        level: filter.level,
        ..HistoryRequest::default()
    };
    if let Some(workload) = request.workload.clone().filter(|_| args.previous) {
        let run = Run::previous(&workload, &nodes, session).await?;
        nodes = vec![run.node];
        (request.workload, request.after, request.until) = (Some(run.id), Some(run.after), run.until);
    }
    let namespace = session.client.namespace().to_string();
    let mut history = kept::open::<HistoryLine>(session, &nodes, &[&namespace], &request).await?;
    let (mut printed, mut last) = (0, VecDeque::new());
    while let Some((node, line)) = history.next().await {
        let at = Timestamp::from_millisecond(line.at_ms).unwrap_or_default();
        let source = LogSource { namespace: namespace.clone(), node: node.to_string(), name: line.name, id: line.id.clone() };
        let entry = LogEntry { source, line: LogLine { text: line.text, level: line.level, id: line.id, seq: Some(line.seq) } };
        let is_of_flags = args.workload_id == "*" || entry.line.id == args.workload_id || entry.line.id.is_empty();
        let is_of_name = args.workload_name == "*" || entry.source.name.eq_ignore_ascii_case(&args.workload_name);
        if !is_of_flags || !(is_of_name || entry.line.id.is_empty()) {
            continue;
        }
        last.push_back((at, entry));
        // Of many nodes each tells its last ones.
        if args.tail.is_none_or(|most| last.len() > usize::from(most))
            && let Some((at, entry)) = last.pop_front()
            && args.tail.is_none()
        {
            print(&entry, at, output)?;
            printed += 1;
        }
    }
    printed += last.len();
    for (at, entry) in last {
        print(&entry, at, output)?;
    }
    kept::say_what_is_missing(&history, output);
    Ok((printed, history.until.iter().map(|(node, until)| (node.to_string(), *until)).collect()))
}

/// Prints a line as of a time.
pub(super) fn print(entry: &LogEntry, at: Timestamp, output: &mut Output) -> anyhow::Result<()> {
    let style = output.style();
    if output.is_json() {
        output.json(&as_json(entry, at))
    } else {
        output.line(as_line(entry, &at.to_zoned(TimeZone::system()), style))
    }
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

/// A line as of a time, for a program.
pub(super) fn as_json(entry: &LogEntry, at: Timestamp) -> serde_json::Value {
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
    if source.id.is_empty() {
        // The node's own remark.
        return format!("{} {level} {}", time(now, style), harmless(line.text.trim_end()));
    }
    let id: String = source.id.chars().rev().take(4).collect::<Vec<_>>().into_iter().rev().collect();
    let name = harmless(&source.name).into_owned();
    let who = format!("{}{}", style.name(&name), style.dim(&format!("/{}", harmless(&id))));
    let time = time(now, style);
    format!("{time} {level} {who} {}", harmless(line.text.trim_end()))
}

/// The time of day, with the day where it is not this one.
fn time(at: &Zoned, style: Style) -> String {
    let today = Timestamp::now().to_zoned(at.time_zone().clone()).date();
    style.dim(&at.strftime(if at.date() == today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> LogEntry {
        let id = "cpv1o2s0tq5c73f0abcd".to_owned();
        let source = LogSource { namespace: "default".into(), node: "N1".into(), name: "echojs".into(), id: id.clone() };
        LogEntry { source, line: LogLine { text: text.into(), level: Level::Warn, id, seq: None } }
    }

    #[test]
    fn a_line_has_time_level_and_workload() {
        let now: Zoned = "2026-02-03T15:04:05+00:00[UTC]".parse().unwrap();
        let text = as_line(&entry("listening\x1b[2J\n"), &now, Style::new(false));
        assert_eq!(text, "2026-02-03 15:04:05 WARN  echojs/abcd listening\u{fffd}[2J");
        assert!(as_line(&entry("x"), &now, Style::new(true)).contains("\x1b["));
        assert_eq!(as_json(&entry("x\n"), Timestamp::UNIX_EPOCH)["level"], "WARN");
    }

    #[test]
    fn one_word_is_an_id_or_a_name() {
        let args = |workload: Option<&str>, name: &str| LogsArgs {
            workload: workload.map(str::to_owned),
            node: NodeRef::Name("*".into()),
            workload_name: name.into(),
            workload_id: "*".into(),
            level: LevelName::Info,
            tail: None,
            since: None,
            follow: false,
            previous: false,
        };
        let by_id = args(Some("cpv1o2s0tq5c73f0abcd"), "*").filter();
        assert_eq!((by_id.workload_id.is_some(), by_id.workload_name), (true, None));
        assert_eq!(args(Some("echo"), "*").filter().workload_name.as_deref(), Some("echo"));
        assert_eq!(args(None, "echo").filter().workload_name.as_deref(), Some("echo"));
        assert_eq!(args(None, "*").filter(), LogFilter { level: Some(Level::Info), ..Default::default() });
    }
}
