//! `nex replay`: calls a function once more with a message that a stream keeps or a trigger gave up, and says what differs.

mod told;
mod trial;

use std::path::PathBuf;

use anyhow::Context as _;
use async_nats::HeaderMap;
use bytes::Bytes;
use clap::Args;
use nex_client::dead::DeadLetter;
use nex_client::deploy::{Keys, Target};
use nex_client::discover::Running;
use nex_client::replay::Callee;
use nex_protocol::digest::Digest;
use nex_protocol::id::{NodeId, WorkloadName};
use nex_protocol::replay::{Record, Replay, ReplayHead, Replayed, Rest};
use nex_protocol::trigger::dead;

use crate::args::{ConnectionArgs, KeyArgs};
use crate::check::{self, Usage};
use crate::env::Env;
use crate::exit::Differs;
use crate::output::Output;
use crate::session::{self, Session};
use told::Told;
use trial::Trial;

/// `nex replay`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex replay 7                            dead letter 7: does it still fail, and in the same way?
  nex replay 7 --file fixed.mjs           does this file do better? It is not deployed in the function's place
  nex replay ORDERS:1042 --workload orders --live

The host calls of the last attempt of a dead letter are on record, and answered from there: nothing is done a second time. Host calls that
are not on record are refused, or made with --live. Only the curve key that deployed the function can replay.

Exit codes: 0 the same as on record, or done where there is none; 7 something else; 1 failed")]
pub(crate) struct ReplayArgs {
    /// Number of a dead letter, or STREAM:SEQUENCE
    #[arg(value_name = "LETTER|STREAM:SEQUENCE", value_parser = which)]
    message: Which,
    /// The function that is called [default: the one that gave the message up]
    #[arg(long, value_name = "NAME")]
    workload: Option<WorkloadName>,
    /// Call this file instead, with the environment, secrets and limits of the function, if it runs
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Make the host calls that are not on record; a file has buckets of its own
    #[arg(long)]
    live: bool,
    /// Only on one of these nodes; repeatable
    #[arg(long = "node", value_name = "NODE", value_delimiter = ',', value_parser = check::trusted_node)]
    nodes: Vec<NodeId>,
    #[command(flatten)]
    keys: KeyArgs,
}

/// Which message.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    Dead(u64),
    Stored { stream: String, sequence: u64 },
}

fn which(text: &str) -> Result<Which, String> {
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number > 0);
    let is_name =
        |name: &str| !name.is_empty() && !name.contains(['.', '*', '>', '/', '\\']) && !name.contains(char::is_whitespace);
    let stored = || {
        let (stream, sequence) = text.rsplit_once(':').filter(|(stream, _)| is_name(stream))?;
        Some(Which::Stored { stream: stream.to_owned(), sequence: number(sequence)? })
    };
    let found = number(text).map(Which::Dead).or_else(stored);
    found.ok_or_else(|| "expected the number of a dead letter as in nex dead ls, or STREAM:SEQUENCE".to_owned())
}

/// A message, and what came of it before.
struct Message {
    /// For people.
    what: String,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
    attempt: u32,
    workload: Option<WorkloadName>,
    /// Why it was given up.
    failure: Option<String>,
    record: Option<Record>,
}

/// What is called.
struct Called {
    name: String,
    id: String,
    target: Target,
}

/// Does it.
pub(crate) async fn run(args: &ReplayArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let keys = args.keys.load(env, output)?;
    let session = session::open(connection, env).await?;
    let message = args.message(&keys, &session).await?;
    let name = args
        .workload
        .as_ref()
        .or(message.workload.as_ref())
        .cloned()
        .ok_or_else(|| Usage("a message of a stream is for any function; next: name one with --workload".to_owned()))?;
    if message.record.is_none() {
        let then = if args.live { "are made" } else { "are refused; next: make them with --live" };
        output.note(format_args!("There is no record of host calls that we can open: all {then}"));
    }
    let replayed = match &args.file {
        Some(file) => {
            let trial = Trial { file, name: &name, nodes: &args.nodes, keys: &keys, session: &session };
            let called = Box::pin(trial.start(output)).await?;
            let replayed = interruptible(args.call(&message, &called, &keys, &session)).await;
            trial.stop(&called).await?;
            (called, replayed?)
        }
        None => {
            let called = args.running(&name, &keys, &session).await?;
            let replayed = interruptible(args.call(&message, &called, &keys, &session)).await?;
            (called, replayed)
        }
    };
    let (called, replayed) = replayed;
    let told = Told { message: &message, called: &called, replayed: &replayed, is_live: args.live };
    told.print(output)?;
    match told.is_same() {
        Some(true) => Ok(()),
        Some(false) => Err(Differs.into()),
        None => match &replayed.failure {
            None => Ok(()),
            Some(failure) => anyhow::bail!("the call failed: {failure}"),
        },
    }
}

impl ReplayArgs {
    async fn message(&self, keys: &Keys, session: &Session) -> anyhow::Result<Message> {
        match &self.message {
            Which::Dead(number) => {
                let letters = session.client.dead_letters().await?;
                let letter = match letters {
                    Some(letters) => letters.get(*number).await?,
                    None => None,
                };
                let none = || format!("there is no dead letter {number}; next: see those there are with `nex dead ls`");
                Ok(Message::of_dead(letter.with_context(none)?, keys))
            }
            Which::Stored { stream, sequence } => {
                let stored = session.client.message(stream, *sequence).await?;
                let mut headers = stored.headers;
                headers.insert(async_nats::header::NATS_STREAM, stream.as_str());
                headers.insert(async_nats::header::NATS_SEQUENCE, sequence.to_string());
                Ok(Message {
                    what: format!("message {sequence} of {stream}"),
                    subject: stored.subject.to_string(),
                    headers,
                    payload: stored.payload,
                    attempt: 1,
                    workload: None,
                    failure: None,
                    record: None,
                })
            }
        }
    }

    /// The newest copy of ours, on a node whose key is its own.
    async fn running(&self, name: &WorkloadName, keys: &Keys, session: &Session) -> anyhow::Result<Called> {
        let issuer = keys.issuer.public_key();
        let mut running = session.client.workloads(Some(name.as_str()), session.discovery_timeout).await?;
        running.retain(|it| it.workload.name == name.as_str() && it.workload.issuer == issuer);
        running.retain(|it| self.nodes.is_empty() || self.nodes.contains(&it.node));
        // Ids begin with the time they were made.
        let newest = running.into_iter().max_by(|a, b| a.workload.id.cmp(&b.workload.id));
        let Running { node, workload, .. } = newest.with_context(|| {
            format!("no copy of '{name}' of ours runs; next: see what runs with `nex ps`, or replay with a --file")
        })?;
        let info = session.client.info(&node).await?;
        let target = Target::new(node, info.public_xkey, &info.xkey_signature)?;
        anyhow::ensure!(target.is_signed, "node {} does not sign its key; next: update the node", target.node);
        Ok(Called { name: workload.name, id: workload.id, target })
    }

    async fn call(&self, message: &Message, called: &Called, keys: &Keys, session: &Session) -> anyhow::Result<Replayed> {
        let Called { id, target, .. } = called;
        let callee = Callee { id, node: &target.node, node_xkey: &target.xkey, deployer: &keys.sender };
        let flat = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
            values.iter().map(|value| (name.to_string(), value.as_str().to_owned())).collect::<Vec<_>>()
        };
        let head = ReplayHead {
            workload_id: String::new(),
            expires: 0,
            payload: Digest::of(b""),
            subject: message.subject.clone(),
            headers: message.headers.iter().flat_map(flat).collect(),
            attempt: message.attempt,
            replay: Replay {
                record: message.record.clone().unwrap_or_default(),
                rest: if self.live { Rest::Live } else { Rest::Refuse },
            },
        };
        Ok(session.client.replay(&callee, head, &message.payload, session.work_timeout).await?)
    }
}

impl Message {
    fn of_dead(letter: DeadLetter, keys: &Keys) -> Self {
        let mut headers = letter.headers();
        headers.insert(async_nats::header::NATS_STREAM, letter.says(dead::STREAM));
        headers.insert(async_nats::header::NATS_SEQUENCE, letter.says(dead::SEQUENCE));
        Self {
            what: format!("dead letter {}", letter.sequence),
            subject: letter.says(dead::SUBJECT).to_owned(),
            headers,
            attempt: letter.says(dead::ATTEMPTS).parse().unwrap_or(1),
            workload: letter.says(dead::WORKLOAD).parse().ok(),
            failure: Some(letter.says(dead::REASON).to_owned()),
            record: letter.calls(&keys.sender),
            payload: letter.payload,
        }
    }
}

/// What runs for a trial is stopped, also when somebody interrupts.
async fn interruptible(call: impl Future<Output = anyhow::Result<Replayed>>) -> anyhow::Result<Replayed> {
    tokio::select! {
        done = call => done,
        _interrupted = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_dead_letter_or_one_of_a_stream() {
        assert_eq!(which("7"), Ok(Which::Dead(7)));
        assert_eq!(which("ORDERS:1042"), Ok(Which::Stored { stream: "ORDERS".into(), sequence: 1042 }));
        for wrong in ["", "0", "-1", "ORDERS", "ORDERS:", ":3", "ORDERS:0", "A.B:3", "A *:3", "ORDERS:three"] {
            assert!(which(wrong).unwrap_err().contains("STREAM:SEQUENCE"), "{wrong}");
        }
    }
}
