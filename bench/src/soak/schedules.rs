//! Schedules of two nodes, one of which is killed again and again: each time is one call, soon, whoever lives.
#![expect(clippy::print_stdout, reason = "the report of a program for the terminal")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use futures::StreamExt as _;
use nex_testkit::NatsServer;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::nodes::{Nodes, away};
use crate::load::Times;

/// Schedules of one function; more would be more than a workload may have.
const OF_ONE: usize = 100;
/// The shortest time between two calls of one, in seconds; each of a function has another.
const SHORTEST: usize = 10;
/// Between two kills.
const CALM: Duration = Duration::from_secs(15);
/// Latest call that is in time.
const LATE: Duration = Duration::from_secs(1);
/// What came so shortly before the end need not have been dealt with.
const LAST: Duration = Duration::from_secs(5);

const FUNCTION: &str = r#"
export default {
  async fetch(request) {
    const text = `${request.headers.get("nats-sequence")} ${Date.now()}`;
    hostServices.messaging.publish("soak.fired", new TextEncoder().encode(text));
    return new Response();
  },
};
"#;

/// Gives what did not come out as promised.
pub(super) async fn run(schedules: usize, time: Duration, seed: u64) -> Result<Vec<String>> {
    let server = NatsServer::start().await;
    let mut nodes = Nodes::start(&server.url(), 2).await?;
    let mut fired = nodes.client.nats().subscribe("soak.fired").await?;
    nodes.client.nats().flush().await?;
    for (number, from) in (0..schedules).step_by(OF_ONE).enumerate() {
        let count = OF_ONE.min(schedules - from);
        let triggers: Vec<String> =
            (0..count).map(|index| format!("every:{}s?ack-wait=500ms&backoff=100ms", SHORTEST + index)).collect();
        nodes.deploy(&format!("soak-schedules-{number}"), FUNCTION, &triggers).await?;
    }
    println!(
        "\n{schedules} schedules on two nodes for {} s, one killed every {} s, seed {seed}\n",
        time.as_secs(),
        CALM.as_secs()
    );
    let (mut rng, began, mut kills) = (StdRng::seed_from_u64(seed), Instant::now(), 0_usize);
    while began.elapsed() < time {
        tokio::time::sleep(CALM).await;
        let away = away(&mut rng);
        nodes.kill(kills % 2, away).await?;
        kills += 1;
    }
    tokio::time::sleep(LAST).await;
    let mut called: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    while let Ok(Some(message)) = tokio::time::timeout(LATE, fired.next()).await {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        let (sequence, at) = text.split_once(' ').context("the function says something else")?;
        called.entry(sequence.parse()?).or_default().push(at.parse()?);
    }
    let came = times_that_came(&nodes).await?;
    let wrong = judge(&came, &called, kills);
    let left = nodes.end().await?;
    drop(server);
    Ok(wrong.into_iter().chain(left).collect())
}

/// A time that came.
struct Came {
    subject: String,
    at_ms: i64,
}

/// By number in the stream; those that came last are left out.
async fn times_that_came(nodes: &Nodes) -> Result<BTreeMap<u64, Came>> {
    let mut stream = jetstream::new(nodes.client.nats().clone()).get_stream("NEX_SCHEDULES_default").await?;
    let last = stream.info().await?.state.last_sequence;
    let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis())?;
    let mut came = BTreeMap::new();
    // One by one: a stream has no more than a thousand consumers, and each schedule has one.
    for sequence in 1..=last {
        let Ok(message) = stream.get_raw_message(sequence).await else { continue };
        let at_ms = i64::try_from(message.time.unix_timestamp_nanos() / 1_000_000)?;
        if message.subject.starts_with("$NEX.fire.") && now - at_ms > i64::try_from((LAST + LATE).as_millis())? {
            came.insert(sequence, Came { subject: message.subject.to_string(), at_ms });
        }
    }
    Ok(came)
}

fn judge(came: &BTreeMap<u64, Came>, called: &BTreeMap<u64, Vec<i64>>, kills: usize) -> Vec<String> {
    let (mut missed, mut again, mut late, mut spans) = (0, 0, 0, Vec::new());
    let mut gaps: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (sequence, Came { subject, at_ms }) in came {
        gaps.entry(subject).or_default().push(*at_ms);
        let Some(first) = called.get(sequence).and_then(|calls| calls.iter().min()) else {
            missed += 1;
            continue;
        };
        again += called.get(sequence).map_or(0, |calls| calls.len() - 1);
        let span = Duration::from_millis(u64::try_from(first - at_ms).unwrap_or(0));
        late += usize::from(span > LATE);
        spans.push(span);
    }
    // The longest one comes every so many seconds; the server decides when, and no kill of a node may keep it from that.
    let period = |times: &[i64]| times.windows(2).filter_map(|pair| Some(pair.get(1)? - pair.first()?)).collect::<Vec<_>>();
    let uneven = gaps.values().map(|times| period(times)).filter(|gaps| {
        let (least, most) = (gaps.iter().min().copied().unwrap_or(0), gaps.iter().max().copied().unwrap_or(0));
        most - least > 1_000
    });
    let uneven = uneven.count();
    let times = Times::of(spans);
    println!("  {:<44} {:>8}, {kills}", "times that came, kills", came.len());
    println!("  {:<44} {missed:>8}, {again}", "missed, called once more");
    println!("  {:<44} {late:>8}", "called first more than a second late");
    println!("  {:<44} {:>8.1}, {:.1}, {:.1}", "ms until the call: p50, p99, most", times.p50_ms, times.p99_ms, times.max_ms);
    println!("  {:<44} {uneven:>8}", "schedules whose times are uneven");
    let mut wrong = Vec::new();
    for (count, what) in [(missed, "times were missed"), (uneven, "schedules came at uneven times")] {
        if count > 0 {
            wrong.push(format!("{count} {what}"));
        }
    }
    // What a node had in hand when it was killed is another's a second after it was heard of last.
    if late > kills {
        wrong.push(format!("{late} calls were more than a second late, with {kills} kills"));
    }
    if again > kills {
        wrong.push(format!("{again} calls were made once more, with {kills} kills"));
    }
    wrong
}
