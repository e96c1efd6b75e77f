//! Messages of a replicated stream, on two nodes and a cluster of three servers that are all killed at random: each message has its one
//! effect, or is kept as a dead letter.
//!
//! The effect is by the recipe of the documents: asked of the stream that takes it, under an id made of the message's own stream and number.
#![expect(clippy::print_stdout, reason = "the report of a program for the terminal")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use async_nats::jetstream::consumer::{self, pull};
use async_nats::jetstream::{self, stream};
use futures::StreamExt as _;
use futures::future::join_all;
use nex_process::TaskScope;
use nex_testkit::{NatsServer, eventually};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

use super::nodes::{Nodes, away};
use crate::plan::TIMEOUT;

/// One of so many messages can never be dealt with.
const BAD: usize = 100;
/// Messages on their way into the stream at once.
const WINDOW: usize = 500;
/// Longest pause between two faults, ms.
const CALM_MS: u64 = 3_000;
/// Longest time in which nothing is dealt with: what fails is tried again with growing pauses.
const SILENCE: Duration = Duration::from_secs(180);

const FUNCTION: &str = r#"
const encode = (text) => new TextEncoder().encode(text);
const decode = (bytes) => new TextDecoder().decode(bytes);
export default {
  async fetch(request) {
    const number = Number(await request.text());
    if (number % 100 === 0) throw new Error(`${number} is bad`);
    const once = `${request.headers.get("nats-stream")}-${request.headers.get("nats-sequence")}`;
    const stored = hostServices.messaging.request("soak.effects", encode(String(number)), { headers: { "Nats-Msg-Id": once } });
    const { error } = JSON.parse(decode(stored));
    if (error) throw new Error(error.description);
    return new Response();
  },
};
"#;

/// What was killed, and how often.
#[derive(Debug, Default)]
struct Killed {
    nodes: u32,
    agents: u32,
    servers: u32,
}

/// Gives what did not come out as promised.
pub(super) async fn run(messages: usize, seed: u64) -> Result<Vec<String>> {
    let servers = NatsServer::start_cluster().await;
    let urls = servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
    let nodes = Nodes::start(&urls, 2).await?;
    let context = jetstream::new(nodes.client.nats().clone());
    for (name, subject) in [("WORK", "soak.work"), ("EFFECTS", "soak.effects")] {
        make(&context, name, subject).await?;
    }
    let trigger = "stream:WORK?start=all&max-deliver=12&backoff=20ms&ack-wait=5s".to_owned();
    nodes.deploy("soak-messages", FUNCTION, &[trigger]).await?;
    println!(
        "\n{messages} messages, one of {BAD} bad; two nodes, three servers, replicated streams; all killed at random, seed {seed}\n"
    );
    let (began, calm) = (Instant::now(), CancellationToken::new());
    let faults = Box::pin(kill_at_random(nodes, servers, StdRng::seed_from_u64(seed), calm.clone()));
    let scope = TaskScope::new("faults");
    let (done, struck) = tokio::sync::oneshot::channel();
    scope.spawn("faults", async move {
        done.send(faults.await).ok();
    });
    for from in (0..messages).step_by(WINDOW) {
        join_all((from..messages.min(from + WINDOW)).map(|number| put(&context, number))).await;
    }
    let put_in = began.elapsed();
    let (good, bad) = (messages - messages.div_ceil(BAD), messages.div_ceil(BAD));
    let is_in_time = all_are_dealt_with(&context, (good, bad)).await;
    let took = began.elapsed();
    calm.cancel();
    let (nodes, servers, killed) = struck.await.context("the faults have ended early")??;
    let mut wrong = Vec::new();
    if !is_in_time {
        wrong.push(format!("nothing was dealt with for {SILENCE:?}, and not all is"));
    }
    let effects = Box::pin(numbers(&context, "EFFECTS", &mut wrong)).await?;
    let dead = Box::pin(numbers(&context, "NEX_DEAD_default", &mut wrong)).await?;
    judge(messages, &effects, &dead, &mut wrong);
    let info: consumer::Info = consumer_of(&context).await?;
    let again = info.delivered.consumer_sequence.saturating_sub(messages as u64);
    let Killed { nodes: killed_nodes, agents, servers: killed_servers } = killed;
    println!("  {:<44} {killed_nodes:>8}, {agents}, {killed_servers}", "nodes, processes of agents, servers killed");
    println!(
        "  {:<44} {:>8.0} s, {:.0} s",
        "until all were in, until all were dealt with",
        put_in.as_secs_f64(),
        took.as_secs_f64()
    );
    println!("  {:<44} {:>8}, {}", "effects, dead letters", effects.values().sum::<usize>(), dead.values().sum::<usize>());
    println!("  {:<44} {again:>8}", "deliveries more than messages");
    wrong.extend(nodes.end().await?);
    drop(servers);
    Ok(wrong)
}

/// A stream on all three, as soon as they have found each other.
async fn make(context: &jetstream::Context, name: &str, subject: &str) -> Result<()> {
    let config = stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        num_replicas: 3,
        duplicate_window: Duration::from_secs(3_600),
        ..stream::Config::default()
    };
    let made = async || context.get_or_create_stream(config.clone()).await.is_ok();
    anyhow::ensure!(eventually(TIMEOUT, made).await, "the stream {name} cannot be made");
    Ok(())
}

/// Puts a message in, once, however often that has to be asked.
async fn put(context: &jetstream::Context, number: usize) {
    loop {
        let message =
            jetstream::message::PublishMessage::build().message_id(number.to_string()).payload(number.to_string().into());
        if let Ok(sent) = context.send_publish("soak.work", message).await
            && sent.await.is_ok()
        {
            return;
        }
    }
}

async fn count(context: &jetstream::Context, name: &str) -> usize {
    match context.get_stream(name).await {
        Ok(stream) => usize::try_from(stream.cached_info().state.messages).unwrap_or(usize::MAX),
        Err(_away) => 0,
    }
}

/// Whether there are so many effects and dead letters at last: it is waited for as long as there are more and more.
async fn all_are_dealt_with(context: &jetstream::Context, (good, bad): (usize, usize)) -> bool {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let (done, kept) = (count(context, "EFFECTS").await, count(context, "NEX_DEAD_default").await);
        if done + kept > last {
            (last, since) = (done + kept, Instant::now());
        }
        let is_done = done >= good && kept >= bad;
        if is_done || since.elapsed() > SILENCE {
            return is_done;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn consumer_of(context: &jetstream::Context) -> Result<consumer::Info> {
    let stream = context.get_stream("WORK").await?;
    let mut consumers = stream.consumers();
    consumers.next().await.context("there is no consumer of the trigger")?.context("asking for the consumer")
}

/// How often each number is in a stream.
async fn numbers(context: &jetstream::Context, name: &str, wrong: &mut Vec<String>) -> Result<BTreeMap<usize, usize>> {
    let stream = context.get_stream(name).await?;
    let all = usize::try_from(stream.cached_info().state.messages)?;
    let mut messages = stream.create_consumer(pull::OrderedConfig::default()).await?.messages().await?;
    let mut found = BTreeMap::new();
    for _ in 0..all {
        let message = messages.next().await.context("the messages ended")??;
        match String::from_utf8_lossy(&message.payload).parse() {
            Ok(number) => *found.entry(number).or_default() += 1,
            Err(_other) => wrong.push(format!("in {name} is {:?}", message.payload)),
        }
        let reason = message.headers.as_ref().and_then(|headers| headers.get(nex_protocol::trigger::dead::REASON));
        if name != "EFFECTS" && reason.is_none() {
            wrong.push(format!("in {name} is a message without a reason"));
        }
    }
    Ok(found)
}

fn judge(messages: usize, effects: &BTreeMap<usize, usize>, dead: &BTreeMap<usize, usize>, wrong: &mut Vec<String>) {
    for number in 0..messages {
        let (done, kept) = (effects.get(&number).copied().unwrap_or(0), dead.get(&number).copied().unwrap_or(0));
        let is_right = if number % BAD == 0 { done == 0 && kept >= 1 } else { done == 1 && kept == 0 };
        if !is_right && wrong.len() < 20 {
            wrong.push(format!("message {number} has {done} effects and {kept} dead letters"));
        }
    }
}

/// Until it is calm.
async fn kill_at_random(
    mut nodes: Nodes,
    mut servers: Vec<NatsServer>,
    mut rng: StdRng,
    calm: CancellationToken,
) -> Result<(Nodes, Vec<NatsServer>, Killed)> {
    let mut killed = Killed::default();
    let context = jetstream::new(nodes.client.nats().clone());
    while !calm.is_cancelled() {
        let away = away(&mut rng);
        match rng.random_range(0..3) {
            0 => {
                let index = rng.random_range(0..nodes.count());
                nodes.kill(index, away).await?;
                killed.nodes += 1;
            }
            1 => killed.agents += u32::from(nodes.kill_agent(&mut rng)),
            _ => {
                let index = rng.random_range(0..servers.len());
                if let Some(server) = servers.get_mut(index) {
                    server.kill9();
                    tokio::time::sleep(away).await;
                    server.restart().await;
                    killed.servers += 1;
                }
                // Two of three at once are an outage.
                let whole = async || is_whole(&context, "WORK").await && is_whole(&context, "EFFECTS").await;
                anyhow::ensure!(eventually(TIMEOUT, whole).await, "the servers do not agree again within {TIMEOUT:?}");
            }
        }
        let pause = Duration::from_millis(rng.random_range(0..CALM_MS));
        tokio::select! {
            () = calm.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    Ok((nodes, servers, killed))
}

/// Whether all that keep a stream have all of it.
async fn is_whole(context: &jetstream::Context, name: &str) -> bool {
    let Ok(stream) = context.get_stream(name).await else { return false };
    let cluster = stream.cached_info().cluster.as_ref();
    cluster.is_some_and(|cluster| {
        cluster.leader.is_some() && cluster.replicas.len() == 2 && cluster.replicas.iter().all(|it| it.current)
    })
}
