//! `nex dead`: the messages that triggers of the namespace gave up.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::HeaderMap;
use clap::{Args, Subcommand};
use data_encoding::BASE64;
use jiff::Timestamp;
use nex_client::dead::{DeadLetter, DeadLetters};
use nex_protocol::id::WorkloadName;
use nex_protocol::trigger::dead;
use serde_json::{Value, json};

use super::ps::ago;
use crate::check::{self, Usage};
use crate::output::Output;
use crate::session::Session;
use crate::style::harmless;
use crate::table::{Column, Grid, properties, titled};

/// `nex dead`
#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List them
    Ls(LsArgs),
    /// Show one: where it came from, why it is dead, its headers and its payload
    Show(ShowArgs),
    /// Remove them for ever
    Rm(RmArgs),
    /// Call the function with them once more, and remove those that succeed
    Redrive(RedriveArgs),
}

/// `nex dead ls`
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only those of this workload
    #[arg(long, value_name = "NAME")]
    workload: Option<WorkloadName>,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
}

/// `nex dead show`
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Its number
    #[arg(value_name = "NUMBER")]
    number: u64,
    /// Print the payload and nothing else
    #[arg(long)]
    payload: bool,
}

/// Which ones.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Chosen {
    /// Their numbers
    #[arg(value_name = "NUMBER", conflicts_with_all = ["workload", "all"])]
    numbers: Vec<u64>,
    /// All of this workload
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    workload: Option<WorkloadName>,
    /// All of the namespace
    #[arg(long)]
    all: bool,
}

/// `nex dead rm`
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    chosen: Chosen,
}

/// `nex dead redrive`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex dead redrive 7 9                      these, to the workload that gave them up
  nex dead redrive --workload orders --rate 50
  nex dead redrive --all --to repair.orders to whoever listens on a subject, such as another function's trigger")]
pub(crate) struct RedriveArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Subject to call instead of the workload that gave them up
    #[arg(long, value_name = "SUBJECT", value_parser = check::subject)]
    to: Option<String>,
    /// At most so many a second
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
}

/// Does it.
pub(crate) async fn run(command: &DeadCommand, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let letters = session.client.dead_letters().await?;
    match command {
        DeadCommand::Ls(args) => ls(args, letters.as_ref(), session, output).await,
        DeadCommand::Show(args) => show(args, letters.as_ref(), output).await,
        DeadCommand::Rm(args) => rm(args, letters.as_ref(), output).await,
        DeadCommand::Redrive(args) => redrive(args, letters.as_ref(), session, output).await,
    }
}

async fn ls(args: &LsArgs, letters: Option<&DeadLetters>, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(letters) = letters.filter(|_| (found.len() as u64) < args.limit) {
        let Some(letter) = letters.next(from, args.workload.as_ref()).await? else { break };
        from = letter.sequence + 1;
        found.push(letter);
    }
    if output.is_json() {
        return output.document(&found.iter().map(as_json).collect::<Vec<_>>());
    }
    if found.is_empty() {
        return output.line(format_args!("No dead letters in namespace {}", session.client.namespace()));
    }
    if found.len() as u64 == args.limit {
        output.note(format_args!("Only the first {}; more with --limit", args.limit));
    }
    output.table(&table(&found, Timestamp::now()))
}

async fn show(args: &ShowArgs, letters: Option<&DeadLetters>, output: &mut Output) -> anyhow::Result<()> {
    let letter = one(letters, args.number).await?;
    if args.payload {
        return output.reply(&letter.payload);
    }
    if output.is_json() {
        return output.document(&as_json(&letter));
    }
    output.table(&details(&letter, Timestamp::now()))?;
    output.reply(&letter.payload)
}

async fn one(letters: Option<&DeadLetters>, number: u64) -> anyhow::Result<DeadLetter> {
    let found = match letters {
        Some(letters) => letters.get(number).await?,
        None => None,
    };
    found.with_context(|| format!("there is no dead letter {number}; next: see those there are with `nex dead ls`"))
}

impl Chosen {
    /// The next of them behind a number, if they are not named one by one.
    async fn after(&self, letters: &DeadLetters, number: u64) -> anyhow::Result<Option<DeadLetter>> {
        Ok(letters.next(number + 1, self.workload.as_ref()).await?)
    }
}

/// Goes through those that are there now; what is given up meanwhile is not among them.
struct Walk<'a> {
    chosen: &'a Chosen,
    letters: Option<&'a DeadLetters>,
    named: std::slice::Iter<'a, u64>,
    last: u64,
    until: i64,
}

impl<'a> Walk<'a> {
    fn of(chosen: &'a Chosen, letters: Option<&'a DeadLetters>) -> Self {
        Self { chosen, letters, named: chosen.numbers.iter(), last: 0, until: Timestamp::now().as_second() }
    }

    async fn next(&mut self) -> anyhow::Result<Option<DeadLetter>> {
        if !self.chosen.numbers.is_empty() {
            return match self.named.next() {
                Some(number) => Ok(Some(one(self.letters, *number).await?)),
                None => Ok(None),
            };
        }
        let Some(letters) = self.letters else { return Ok(None) };
        let found = self.chosen.after(letters, self.last).await?.filter(|letter| letter.at <= self.until);
        self.last = found.as_ref().map_or(self.last, |letter| letter.sequence);
        Ok(found)
    }
}

async fn rm(args: &RmArgs, letters: Option<&DeadLetters>, output: &mut Output) -> anyhow::Result<()> {
    let mut walk = Walk::of(&args.chosen, letters);
    let mut removed = Vec::new();
    while let (Some(letter), Some(letters)) = (walk.next().await?, letters) {
        if letters.remove(letter.sequence).await? {
            removed.push(letter.sequence);
        }
    }
    match output.is_json() {
        true => output.document(&json!({ "removed": removed })),
        false => output.line(format_args!("Removed {} dead letters", removed.len())),
    }
}

async fn redrive(
    args: &RedriveArgs,
    letters: Option<&DeadLetters>,
    session: &Session,
    output: &mut Output,
) -> anyhow::Result<()> {
    if args.to.as_ref().is_some_and(|to| to.contains(['*', '>'])) {
        return Err(Usage("--to is one subject, without wildcards; next: name the function's own".to_owned()).into());
    }
    let mut walk = Walk::of(&args.chosen, letters);
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    let each = Duration::from_secs(1) / args.rate;
    let mut next = Instant::now();
    while let (Some(letter), Some(letters)) = (walk.next().await?, letters) {
        tokio::time::sleep_until(next.into()).await;
        next = Instant::now().max(next) + each;
        match letters.redrive(&letter, args.to.as_deref(), session.work_timeout).await {
            // Removed last: what is lost in between is done twice, and not never.
            Ok(_reply) => {
                letters.remove(letter.sequence).await?;
                done.push(letter.sequence);
            }
            Err(error) => {
                output.note(format_args!("{}: {}", letter.sequence, harmless(&error.to_string())));
                failed.push(json!({ "number": letter.sequence, "error": error.to_string() }));
            }
        }
    }
    match output.is_json() {
        true => output.document(&json!({ "redriven": done, "failed": failed }))?,
        false => output.line(format_args!("Redrove {} dead letters; {} failed and stay", done.len(), failed.len()))?,
    }
    anyhow::ensure!(failed.is_empty(), "{} dead letters failed once more; next: see why with nex dead show", failed.len());
    Ok(())
}

fn table(letters: &[DeadLetter], now: Timestamp) -> Grid {
    let columns = [
        Column::right("Number"),
        Column::left("Workload"),
        Column::right("Age"),
        Column::left("Subject"),
        Column::right("Attempts").optional(),
        Column::right("Bytes").optional(),
        Column::left("Reason"),
    ];
    let row = |letter: &DeadLetter| {
        let text = |name| letter.says(name).to_owned();
        vec![
            letter.sequence.to_string(),
            text(dead::WORKLOAD),
            ago(letter.at, now),
            text(dead::SUBJECT),
            text(dead::ATTEMPTS),
            letter.payload.len().to_string(),
            text(dead::REASON),
        ]
    };
    titled("Dead letters", &columns, letters.iter().map(row))
}

fn details(letter: &DeadLetter, now: Timestamp) -> Grid {
    let text = |name| letter.says(name).to_owned();
    let headers: Vec<String> = pairs(&letter.headers()).into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let rows = [
        ("Reason", text(dead::REASON)),
        ("Attempts", text(dead::ATTEMPTS)),
        ("Age", ago(letter.at, now)),
        ("Workload", format!("{} ({})", letter.says(dead::WORKLOAD), letter.says(dead::WORKLOAD_ID))),
        ("Artifact", text(dead::DIGEST)),
        ("Trigger", text(dead::TRIGGER)),
        ("Stream", format!("{}, message {}", letter.says(dead::STREAM), letter.says(dead::SEQUENCE))),
        ("Subject", text(dead::SUBJECT)),
        ("Headers", headers.join("\n")),
        ("Bytes", letter.payload.len().to_string()),
    ];
    properties(&format!("Dead letter {}", letter.sequence), rows)
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let each = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
        values.iter().map(|value| (name.to_string(), value.as_str().to_owned())).collect::<Vec<_>>()
    };
    headers.iter().flat_map(each).collect()
}

/// A dead letter as JSON; the payload as a string where it is text, else in base64.
fn as_json(letter: &DeadLetter) -> Value {
    let number = |name| letter.says(name).parse::<u64>().ok();
    let mut told = json!({
        "number": letter.sequence,
        "at": letter.at,
        "reason": letter.says(dead::REASON),
        "attempts": number(dead::ATTEMPTS),
        "workload": letter.says(dead::WORKLOAD),
        "workload_id": letter.says(dead::WORKLOAD_ID),
        "digest": letter.says(dead::DIGEST),
        "trigger": letter.says(dead::TRIGGER),
        "stream": letter.says(dead::STREAM),
        "sequence": number(dead::SEQUENCE),
        "subject": letter.says(dead::SUBJECT),
        "headers": pairs(&letter.headers()).into_iter().map(|(name, value)| json!([name, value])).collect::<Vec<_>>(),
        "bytes": letter.payload.len(),
    });
    let (name, payload) = match std::str::from_utf8(&letter.payload) {
        Ok(text) => ("payload", text.to_owned()),
        Err(_binary) => ("payload_base64", BASE64.encode(&letter.payload)),
    };
    if let Some(told) = told.as_object_mut() {
        told.insert(name.to_owned(), payload.into());
    }
    told
}
