//! `nex events`: prints events of nodes and workloads, as nodes have kept them and as they happen.

use std::collections::{HashSet, VecDeque};

use clap::Args;
use futures::StreamExt as _;
use jiff::{Timestamp, Zoned, tz::TimeZone};
use nex_client::watch::NamespacedEvent;
use nex_protocol::control::{HistoryEvent, HistoryRequest};
use nex_protocol::event::{SYSTEM, kind};
use nex_protocol::id::Namespace;
use serde_json::Value;

use crate::check::Usage;
use crate::kept::{self, Since};
use crate::output::Output;
use crate::session::Session;
use crate::style::{Style, harmless};

/// Refuses the namespace that is always subscribed.
pub(crate) fn check(namespace: &Namespace) -> Result<(), Usage> {
    if namespace.as_str() != SYSTEM {
        return Ok(());
    }
    let why = "namespace filter cannot contain the token 'system', as that is automatically subscribed";
    Err(Usage(format!("{why}; next: name the namespace of your workloads")))
}

/// `nex events`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex events                        what happens from now on
  nex events --since 1h             the last hour, as far as nodes have kept it
  nex events --tail 20 --follow     the last ones, and what follows

Nodes keep what happens to nodes, agents and workloads; heartbeats and calls of functions they do not keep.")]
pub(crate) struct EventsArgs {
    /// Print the last events that nodes have kept, so many; then end
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u16).range(1..))]
    tail: Option<u16>,
    /// Print the events that nodes have kept from a time on: how long ago (10m, 1d), or a time of RFC 3339; then end
    #[arg(long, value_name = "TIME", value_parser = kept::since)]
    since: Option<Since>,
    /// Go on with what happens from now on; without --since or --tail it is what happens anyway
    #[arg(long, short)]
    follow: bool,
}

/// Prints what was kept, or until interrupted, or both.
pub(crate) async fn run(args: &EventsArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let is_kept = args.since.is_some() || args.tail.is_some();
    // It listens before it asks, so that nothing happens in between.
    let live = if is_kept && !args.follow { None } else { Some(session.client.events().await?) };
    let mut printed = if is_kept { print_kept(args, session, output).await? } else { HashSet::new() };
    let Some(mut events) = live else { return Ok(()) };
    let namespace = session.client.namespace();
    output.note(output.style().dim(&format!("Watching events of namespace {namespace} and of nodes; interrupt to end")));
    while let Some(event) = events.next().await {
        // One that was kept comes live once more, and no oftener.
        if !printed.remove(&event.event.id) {
            print(&event, output)?;
        }
    }
    anyhow::bail!("the connection to NATS is closed")
}

/// Prints the events that nodes have kept; says which.
async fn print_kept(args: &EventsArgs, session: &Session, output: &mut Output) -> anyhow::Result<HashSet<String>> {
    let nodes = kept::nodes(session).await?;
    let request = HistoryRequest {
        since_ms: args.since.map(|since| since.millis(Timestamp::now())),
        tail: args.tail.map(usize::from),
        ..HistoryRequest::default()
    };
    let namespaces = [session.client.namespace().as_str(), SYSTEM];
    let mut history = kept::open::<HistoryEvent>(session, &nodes, &namespaces, &request).await?;
    let (mut printed, mut last) = (HashSet::new(), VecDeque::new());
    while let Some((_, HistoryEvent { event, .. })) = history.next().await {
        // One that a killed node had not told yet may have been kept twice.
        if !printed.insert(event.id.clone()) {
            continue;
        }
        let namespace = event.namespace.clone().unwrap_or_else(|| SYSTEM.to_owned());
        let event = NamespacedEvent { namespace, event };
        match args.tail {
            None => print(&event, output)?,
            // Of many nodes each tells its last ones.
            Some(most) => {
                last.push_back(event);
                last.drain(..last.len().saturating_sub(usize::from(most)));
            }
        }
    }
    for event in &last {
        print(event, output)?;
    }
    kept::say_what_is_missing(&history, output);
    Ok(printed)
}

fn print(event: &NamespacedEvent, output: &mut Output) -> anyhow::Result<()> {
    let style = output.style();
    if output.is_json() { output.json(&event.event) } else { output.line(as_line(event, &TimeZone::system(), style)) }
}

/// `15:04:05 default workload_deployed workload_name=echojs code=0 source=N…`
fn as_line(event: &NamespacedEvent, zone: &TimeZone, style: Style) -> String {
    let NamespacedEvent { namespace, event } = event;
    let time = event.time.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
    let time = time.map_or_else(Zoned::now, |time| time.to_zoned(zone.clone())).strftime("%H:%M:%S").to_string();
    let kind = match event.r#type.as_str() {
        kind::FUNCTION_EXEC_FAILED => style.error(kind::FUNCTION_EXEC_FAILED),
        kind::WORKLOAD_UNDEPLOYED
        | kind::WORKLOAD_STOPPED_BY_OPERATOR
        | kind::WORKLOAD_UNHEALTHY
        | kind::WORKLOAD_RESTARTING
        | kind::HISTORY_LOST
        | kind::JOURNAL_DAMAGED
        | kind::NODE_STOPPED
        | kind::NODE_ENTERED_LAMEDUCK => style.warn(&event.r#type),
        kind::HEARTBEAT => style.dim(kind::HEARTBEAT),
        other => style.good(&harmless(other)),
    };
    let mut text = format!("{} {} {kind}", style.dim(&time), style.name(&harmless(namespace)));
    for (name, value) in event.data.as_object().into_iter().flatten() {
        text.push_str(&format!(" {}{}", style.dim(&harmless(&format!("{name}="))), harmless(&shown(value))));
    }
    text.push_str(&format!(" {}{}", style.dim("source="), harmless(&ellipsised(&event.source))));
    text
}

/// Formats a value briefly: a single word without quotes, a map as `k=v,k=v`.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains(char::is_whitespace) => ellipsised(text),
        Value::Object(members) => {
            members.iter().map(|(key, value)| format!("{key}={}", shown(value))).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// Shortens a long key or id in the middle.
fn ellipsised(text: &str) -> String {
    let length = text.chars().count();
    if length <= 40 {
        return text.to_owned();
    }
    let (start, end): (String, String) = (text.chars().take(11).collect(), text.chars().skip(length - 11).collect());
    format!("{start}...{end}")
}

#[cfg(test)]
mod tests {
    use nex_protocol::event::CloudEvent;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_line_with_its_data() {
        let source = "NCOBPU3MCEA7LF6XADFD4P74CHW2OL6GQZYPPRRNPDSBNQ5BJPFHHQB5".to_owned();
        let data = json!({"workload_name": "echojs", "code": 0, "message": "all is well", "tags": {"a": "b"}});
        let event = CloudEvent::new("workload_deployed", source, "2026-02-03T15:04:05.5Z".into(), data);
        let event = NamespacedEvent { namespace: "default".into(), event };
        let expected = "15:04:05 default workload_deployed code=0 message=\"all is well\" tags=a=b workload_name=echojs \
                        source=NCOBPU3MCEA...Q5BJPFHHQB5";
        let text = as_line(&event, &TimeZone::UTC, Style::new(false));
        let words = |text: &str| {
            let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            words.sort();
            words
        };
        assert_eq!(words(&text), words(expected), "{text}");
    }

    #[test]
    fn the_system_namespace_is_always_there_and_cannot_be_asked_for() {
        assert!(check(&"system".parse().unwrap()).is_err());
        assert!(check(&"default".parse().unwrap()).is_ok());
    }
}
