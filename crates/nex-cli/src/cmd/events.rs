//! `nex events`: prints events of nodes and workloads as they happen.

use futures::StreamExt as _;
use jiff::{Timestamp, Zoned, tz::TimeZone};
use nex_client::watch::NamespacedEvent;
use nex_protocol::event::{SYSTEM, kind};
use nex_protocol::id::Namespace;
use serde_json::Value;

use crate::check::Usage;
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

/// Prints until interrupted.
pub(crate) async fn run(session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let mut events = session.client.events().await?;
    let namespace = session.client.namespace();
    output.note(output.style().dim(&format!("Watching events of namespace {namespace} and of nodes; interrupt to end")));
    let style = output.style();
    while let Some(event) = events.next().await {
        if output.is_json() {
            output.json(&event.event)?;
        } else {
            output.line(as_line(&event, &TimeZone::system(), style))?;
        }
    }
    anyhow::bail!("the connection to NATS is closed")
}

/// `15:04:05 default workload_deployed workload_name=echojs code=0 source=N…`
fn as_line(event: &NamespacedEvent, zone: &TimeZone, style: Style) -> String {
    let NamespacedEvent { namespace, event } = event;
    let time = event.time.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
    let time = time.map_or_else(Zoned::now, |time| time.to_zoned(zone.clone())).strftime("%H:%M:%S").to_string();
    let kind = match event.r#type.as_str() {
        kind::FUNCTION_EXEC_FAILED => style.error(kind::FUNCTION_EXEC_FAILED),
        kind::WORKLOAD_UNDEPLOYED | kind::NODE_STOPPED | kind::NODE_ENTERED_LAMEDUCK => style.warn(&event.r#type),
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
