//! `cargo xtask soak`: the same again and again, and everything killed in the middle of it. What is counted must come out right, so it fails
//! where it does not.
//!
//! | module | content |
//! |---|---|
//! | [`cycles`] | deploys and stops, and what the node and its host have more of after thousands of them |
//! | [`adoption`] | many workloads of a node that is killed, and how soon the next process has them |
//! | [`chaos`] | faults at random under load: which calls failed, what was started again, what was lost |
//! | [`messages`] | messages of a stream while nodes, agents and a cluster of servers are killed: one effect each, or a dead letter |
//! | [`schedules`] | schedules on two nodes, one killed again and again: each time once, soon |
//! | [`nodes`] | the nodes of these two |
//! | [`callers`], [`churn`] | the load of the chaos |
//! | [`host`] | what a node has of its host |

mod adoption;
mod callers;
mod chaos;
mod churn;
mod cycles;
mod host;
mod messages;
mod nodes;
mod schedules;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// How long answers about what runs are collected.
const LOOK: Duration = Duration::from_millis(500);

const USAGE: &str = "usage: nex-bench --soak [--cycles N] [--adopt N] [--chaos SECONDS] [--messages N]
       [--schedules N] [--time SECONDS] [--seed N]
better: cargo xtask soak";

/// What is done; what is left at zero is not.
#[derive(Debug)]
struct Options {
    cycles: usize,
    /// Workloads of the node that is killed.
    adopt: usize,
    chaos: Duration,
    messages: usize,
    schedules: usize,
    /// How long schedules run.
    time: Duration,
    /// Decides which fault comes when.
    seed: u64,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self {
            cycles: 0,
            adopt: 0,
            chaos: Duration::ZERO,
            messages: 0,
            schedules: 0,
            time: Duration::from_secs(300),
            seed: 1,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let number = args.next().and_then(|number| number.parse::<u64>().ok()).context(USAGE)?;
            match arg.as_str() {
                "--cycles" => options.cycles = usize::try_from(number)?,
                "--adopt" => options.adopt = usize::try_from(number)?,
                "--chaos" => options.chaos = Duration::from_secs(number),
                "--messages" => options.messages = usize::try_from(number)?,
                "--schedules" => options.schedules = usize::try_from(number)?,
                "--time" => options.time = Duration::from_secs(number),
                "--seed" => options.seed = number,
                _ => bail!(USAGE),
            }
        }
        let is_chosen = [options.cycles, options.adopt, options.messages, options.schedules].iter().any(|count| *count > 0);
        if !is_chosen && options.chaos.is_zero() {
            (options.cycles, options.adopt, options.chaos) = (10_000, 200, Duration::from_secs(600));
            (options.messages, options.schedules) = (100_000, 1_000);
        }
        Ok(options)
    }
}

/// Runs what the arguments say.
pub(crate) async fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let mut wrong = Vec::new();
    if options.cycles > 0 {
        wrong.extend(Box::pin(cycles::run(options.cycles)).await.context("deploying and stopping")?);
    }
    if options.adopt > 0 {
        wrong.extend(Box::pin(adoption::run(options.adopt)).await.context("taking over")?);
    }
    if !options.chaos.is_zero() {
        wrong.extend(Box::pin(chaos::run(options.chaos, options.seed)).await.context("the chaos")?);
    }
    if options.messages > 0 {
        wrong.extend(Box::pin(messages::run(options.messages, options.seed)).await.context("messages")?);
    }
    if options.schedules > 0 {
        wrong.extend(Box::pin(schedules::run(options.schedules, options.time, options.seed)).await.context("schedules")?);
    }
    if wrong.is_empty() { Ok(()) } else { bail!("not as promised:\n  {}", wrong.join("\n  ")) }
}
