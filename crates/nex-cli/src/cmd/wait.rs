//! `--wait`: follows a job to its end, prints what it writes, and ends as it did.

use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use nex_client::discover::Found;
use nex_client::watch::{LogEntry, LogFilter, NamespacedEvent};
use nex_protocol::control::{ExitCause, LastExit, WorkloadPingRequest};
use nex_protocol::event::kind;
use nex_protocol::id::WorkloadName;
use nex_protocol::log::{Level, LogLine};
use serde_json::json;

use crate::exit::JobEnded;
use crate::output::Output;
use crate::session::Session;

/// How often the nodes are asked, should the news of its end be lost.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Times in a row that nobody knows a job before it counts as lost.
const UNKNOWN: u32 = 6;

/// What is heard of a job from before it is deployed, so that no line is missed.
pub(crate) struct Follow<L, E> {
    lines: L,
    events: E,
}

/// Begins to listen to the jobs of a name.
pub(crate) async fn listen(
    name: &WorkloadName,
    session: &Session,
) -> anyhow::Result<Follow<impl Stream<Item = LogEntry> + Unpin, impl Stream<Item = NamespacedEvent> + Unpin>> {
    let filter = LogFilter { workload_name: Some(name.to_string()), ..LogFilter::default() };
    Ok(Follow { lines: session.client.logs(filter).await?, events: session.client.events().await? })
}

impl<L: Stream<Item = LogEntry> + Unpin, E: Stream<Item = NamespacedEvent> + Unpin> Follow<L, E> {
    /// Prints what a job writes until it ends.
    ///
    /// # Errors
    /// [`JobEnded`] where it did not end well.
    pub(crate) async fn until_end(mut self, id: &str, session: &Session, output: &mut Output) -> anyhow::Result<()> {
        let (mut ask, mut unknown) = (tokio::time::interval(ASK_EVERY), 0);
        let exit = loop {
            tokio::select! {
                biased;
                Some(entry) = self.lines.next() => print(&entry, id, output)?,
                Some(event) = self.events.next() => if let Some(exit) = its_end(&event, id) {
                    break exit;
                },
                _ = ask.tick() => match ask_for(id, session).await? {
                    Known::Ended(exit) => break exit,
                    Known::Running => unknown = 0,
                    Known::Nowhere if unknown >= UNKNOWN => {
                        anyhow::bail!("no node knows the job {id} any more; next: see `nex ps --all`")
                    }
                    Known::Nowhere => unknown += 1,
                },
                else => anyhow::bail!("the connection to NATS is closed; next: see `nex ps --all`"),
            }
        };
        // What it wrote was told before its end, on the same connection.
        while let Some(Some(entry)) = self.lines.next().now_or_never() {
            print(&entry, id, output)?;
        }
        if output.is_json() {
            output.json(&json!({"id": id, "exit_code": exit.code, "cause": exit.cause, "reason": exit.reason, "at": exit.at}))?;
        }
        if exit.code == 0 { Ok(()) } else { Err(JobEnded(exit).into()) }
    }
}

/// Standard output to standard output, and the rest to standard error.
fn print(entry: &LogEntry, id: &str, output: &mut Output) -> anyhow::Result<()> {
    let LogLine { text, level, .. } = &entry.line;
    match level {
        _ if entry.source.id != id => Ok(()),
        _ if output.is_json() => output.json(&json!({"level": level, "text": text})),
        Level::Info => output.line(text),
        _ => {
            output.note(text);
            Ok(())
        }
    }
}

/// How a workload has ended, if that is what an event tells.
pub(super) fn its_end(event: &NamespacedEvent, id: &str) -> Option<LastExit> {
    let data = &event.event.data;
    if event.event.r#type != kind::WORKLOAD_UNDEPLOYED || data["workload_id"] != id {
        return None;
    }
    let code = data["code"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
    let cause = serde_json::from_value::<ExitCause>(data["cause"].clone()).unwrap_or_default();
    Some(LastExit { code, cause, reason: data["message"].as_str().unwrap_or_default().to_owned(), at: 0 })
}

/// What the nodes know of a job.
enum Known {
    Running,
    Ended(LastExit),
    Nowhere,
}

async fn ask_for(id: &str, session: &Session) -> anyhow::Result<Known> {
    let more = WorkloadPingRequest { ended: true, ..WorkloadPingRequest::default() };
    let Found { ended, running } = session.client.find(Some(id), &more, session.discovery_timeout).await?;
    if running.iter().any(|it| it.workload.id == id) {
        return Ok(Known::Running);
    }
    let ended = ended.into_iter().find(|it| it.workload.id == id);
    Ok(ended.map_or(Known::Nowhere, |it| Known::Ended(it.workload.exit)))
}
