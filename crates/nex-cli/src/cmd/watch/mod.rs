//! `nex devrun --watch`: each save of the file is deployed, and what the workload says is printed beside it.
//!
//! ```text
//!  turning ──done──▶ resting ──save──▶ turning …      a save while one is deployed waits; of several the last counts
//!     │                 │
//!     └── interrupted ──┴──▶ what was started here is stopped
//! ```

mod told;
mod turn;

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::{LocalBoxFuture, pending, select_all};
use futures::{FutureExt as _, Stream, StreamExt as _};
use nex_bus::denials::Denials;
use nex_client::deploy::StopError;
use nex_client::watch::{LogEntry, LogFilter, NamespacedEvent};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::told::Told;
pub(crate) use self::turn::{Live, Turns};
use self::turn::{Turned, is_the_files};
use super::deploy::is_gone;
use super::wait;
use crate::output::Output;
use crate::saves::{Save, Saves};

/// A file whose saves are deployed.
pub(crate) struct Watch<'a> {
    pub(crate) file: &'a Path,
    pub(crate) turns: Turns<'a>,
    pub(crate) saves: Saves,
    pub(crate) is_default_trigger: bool,
    /// Those of the connection.
    pub(crate) denials: &'a Denials,
}

/// How long a denial that the server has told of may take to be heard here.
const DENIED: Duration = Duration::from_millis(200);

/// The save that is being deployed.
type Turning<'a> = Option<LocalBoxFuture<'a, (Live, Turned)>>;

/// What is heard of the workload.
struct Heard<L, E> {
    lines: L,
    events: E,
    signals: Vec<Signal>,
}

impl Watch<'_> {
    /// Deploys, and again with each save, until it is interrupted; then what it started is stopped.
    pub(crate) async fn run(self, live: Live, output: &mut Output) -> anyhow::Result<()> {
        let Self { file, turns, mut saves, is_default_trigger, denials } = self;
        let client = &turns.session.client;
        let mut told = Told { file, is_default_trigger, repeated: &turns.session.repeated, is_first: true, output };
        let filter = LogFilter { workload_name: Some(live.name().to_string()), ..LogFilter::default() };
        let (lines, events) = (client.logs(filter).await?, client.events().await?);
        // What is not permitted ends this before anything is started. The task that tells of it may be behind on a busy machine.
        denials.settle(client.nats()).await;
        if let Ok(denial) = tokio::time::timeout(DENIED, denials.first()).await {
            return Err(denial.into());
        }
        let mut heard = Heard { lines, events, signals: signals().context("cannot handle Ctrl-C")? };
        let (mut turning, mut resting): (Turning<'_>, _) = (Some(turns.first(live).boxed_local()), None);
        // Whatever ends it, what it started is stopped; nobody may be reading any more.
        let followed = follow(&turns, (&mut turning, &mut resting), &mut saves, &mut heard, &mut told).await;
        if let Some(turn) = turning {
            told.output.note("A deploy is under way and is waited for; interrupt again to leave it alone");
            tokio::select! {
                (live, _) = turn => resting = Some(live),
                () = interrupted(&mut heard.signals) => {
                    anyhow::bail!("interrupted while a save was deployed, so that what it started runs on; next: see it with `nex ps`")
                }
            }
        }
        let mut ended = Ok(());
        for copy in resting.iter().flat_map(Live::own) {
            let stopped = match copy.stop(client, &turns.keys.issuer).await {
                Err(StopError::Request(error)) if is_gone(&error) => Ok(()),
                Err(error) => Err(error.into()),
                Ok(()) => told.stopped(copy),
            };
            ended = ended.and(stopped);
        }
        followed.and(ended)?;
        // Its last lines were told before its end.
        client.nats().flush().await.ok();
        while let Some(Some(entry)) = heard.lines.next().now_or_never() {
            told.line(&entry)?;
        }
        Ok(())
    }
}

/// Deploys what is saved until it is interrupted. What runs is in `resting` then, unless a save is being deployed still.
async fn follow<'a, L: Stream<Item = LogEntry> + Unpin, E: Stream<Item = NamespacedEvent> + Unpin>(
    turns: &'a Turns<'a>,
    (turning, resting): (&mut Turning<'a>, &mut Option<Live>),
    saves: &mut Saves,
    heard: &mut Heard<L, E>,
    told: &mut Told<'_>,
) -> anyhow::Result<()> {
    let mut is_first = true;
    loop {
        let is_resting = turning.is_none();
        tokio::select! {
            biased;
            () = interrupted(&mut heard.signals) => return Ok(()),
            (live, turned) = finished(turning) => {
                let live = resting.insert(live);
                match turned.outcome {
                    // Nobody gains by waiting for a save where it is not the file that is wrong.
                    Err(error) if is_first && !is_the_files(&error) => return Err(error),
                    _ => told.turned(turned, live)?,
                }
                is_first = false;
            }
            save = saves.next(), if is_resting => match (save, resting.take()) {
                (Save::Saved(since), Some(live)) => *turning = Some(turns.again(live, since).boxed_local()),
                (_, live) => {
                    *resting = live;
                    told.gone()?;
                }
            },
            Some(entry) = heard.lines.next() => told.line(&entry)?,
            Some(event) = heard.events.next(), if is_resting => {
                let ended = resting.as_mut().map(|live| live.take_ended(|id| wait::its_end(&event, id.as_str())));
                for (copy, exit) in ended.into_iter().flatten() {
                    told.ended(&copy, &exit)?;
                }
            }
        }
    }
}

async fn finished(turning: &mut Turning<'_>) -> (Live, Turned) {
    match turning {
        None => pending().await,
        Some(turn) => {
            let done = turn.await;
            *turning = None;
            done
        }
    }
}

/// Ctrl-C, and what a supervisor or a terminal that is closed sends.
fn signals() -> io::Result<Vec<Signal>> {
    [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].into_iter().map(signal).collect()
}

async fn interrupted(signals: &mut [Signal]) {
    select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
}
