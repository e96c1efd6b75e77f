//! A node's worst hour: its process, its agents, its bus and the NATS server are killed at random while functions are called and workloads
//! come and go.
//!
//! What must come out: calls fail only where what served them was killed, what was not killed is not started again, and in the end runs what
//! was accepted and not stopped, once each, and nothing else.
#![expect(clippy::print_stdout, reason = "the report of a program for the terminal")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nex_client::deploy::Deployment;
use nex_process::{ProcessId, Signal};
use nex_protocol::control::WorkloadSummary;
use nex_protocol::deploy::{RunPolicy, WorkloadType};
use nex_testkit::{eventually, guest};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::callers::{Callers, Failure};
use super::churn::Churn;
use super::host::{left_of, processes_of};
use crate::fixture::{Fixture, Way};
use crate::plan::TIMEOUT;

/// Functions that are called, and services beside them.
const STEADY: usize = 4;
/// Longest time without a node or a server, ms.
const AWAY_MS: u64 = 3_000;
/// Longest time between two faults, ms.
const CALM_MS: u64 = 3_000;
/// Time in which the node has seen that something of its own was killed.
const NOTICED: Duration = Duration::from_secs(2);

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// The node's process; the next one is started after a while.
    Node,
    /// One process of an agent.
    Agent,
    /// The internal bus.
    Bus,
    /// The NATS server; it is started again after a while.
    Nats,
}

const FAULTS: [Fault; 4] = [Fault::Node, Fault::Agent, Fault::Bus, Fault::Nats];

impl Fault {
    fn what(self) -> &'static str {
        match self {
            Self::Node => "the node",
            Self::Agent => "an agent",
            Self::Bus => "the internal bus",
            Self::Nats => "the NATS server",
        }
    }

    /// How many workloads this may take down, and be noticed by the callers of.
    fn may_hit(self) -> usize {
        match self {
            Self::Node | Self::Bus => 0,
            Self::Agent => 1,
            Self::Nats => usize::MAX,
        }
    }

    /// How many workloads may be started again for it.
    fn may_restart(self) -> u32 {
        match self {
            Self::Agent => 1,
            Self::Node | Self::Bus | Self::Nats => 0,
        }
    }
}

/// All faults of one kind.
#[derive(Debug, Default)]
struct Row {
    times: u32,
    failed: usize,
    restarts: u32,
    worst: Duration,
}

struct Chaos {
    fixture: Fixture,
    callers: Callers,
    rng: StdRng,
    steady: BTreeSet<String>,
    rows: [Row; FAULTS.len()],
    wrong: Vec<String>,
}

/// Gives what did not come out as promised.
pub(super) async fn run(time: Duration, seed: u64) -> Result<Vec<String>> {
    let fixture = Fixture::start(Way::Direct, 2).await?;
    let (mut steady, mut subjects) = (BTreeSet::new(), Vec::new());
    let function = fixture.deployment("chaos", WorkloadType::V8, guest::ECHO_JS.as_bytes()).await?;
    let service = fixture.deployment("service", WorkloadType::Native, b"#!/bin/sh\nwhile sleep 1; do :; done\n").await?;
    let service =
        Deployment { policy: Some(RunPolicy { restart: Some("always".to_owned()), ..RunPolicy::default() }), ..service };
    for number in 0..STEADY {
        let subject = format!("chaos.{number}");
        let function =
            Deployment { name: format!("function-{number}").parse()?, triggers: vec![subject.clone()], ..function.clone() };
        let service = Deployment { name: format!("service-{number}").parse()?, ..service.clone() };
        for deployment in [function, service] {
            steady.insert(fixture.deploy(&deployment).await?.id);
        }
        subjects.push(subject);
    }
    let callers = Callers::start(&fixture.client, &subjects);
    let churn = Churn::start(Arc::clone(&fixture.deployer), service);
    println!(
        "\nEverything is killed at random for {} s, seed {seed}; {STEADY} functions are called, {STEADY} services run, workloads come and go\n",
        time.as_secs()
    );
    let rng = StdRng::seed_from_u64(seed);
    let mut chaos = Chaos { fixture, callers, rng, steady, rows: Default::default(), wrong: Vec::new() };
    let began = Instant::now();
    while began.elapsed() < time && chaos.wrong.is_empty() {
        let fault = FAULTS.into_iter().choose(&mut chaos.rng).unwrap_or(Fault::Node);
        Box::pin(chaos.fault(fault)).await?;
        let calm = chaos.rng.random_range(0..CALM_MS);
        tokio::time::sleep(Duration::from_millis(calm)).await;
    }
    chaos.print();
    let [deployed, stopped, unanswered] = churn.stop().await;
    println!(
        "\n  {} calls answered; {deployed} workloads deployed beside them, {stopped} stopped, {unanswered} requests not answered",
        chaos.callers.answered()
    );
    let Chaos { fixture, callers, steady, mut wrong, .. } = chaos;
    callers.stop().await;
    // Of the load those run still whose stop came to nothing, or whose deploy was accepted and its answer lost.
    for workload in running(&fixture).await?.iter().filter(|it| !steady.contains(&it.id)) {
        if let Err(error) = fixture.deployer.stop(&workload.id, &workload.name).await {
            wrong.push(format!("{} cannot be stopped: {error:#}", workload.name));
        }
    }
    let mut ids: Vec<String> = running(&fixture).await?.into_iter().map(|it| it.id).collect();
    ids.sort();
    if !ids.iter().eq(&steady) {
        wrong.push(format!("in the end {ids:?} run, and {steady:?} were accepted and not stopped"));
    }
    let (node, state_dir) = (fixture.deployer.node().clone(), fixture.args.state_dir.clone());
    fixture.end().await?;
    wrong.extend(left_of(&node, &state_dir).await);
    Ok(wrong)
}

/// Everything that runs or is to run.
async fn running(fixture: &Fixture) -> Result<Vec<WorkloadSummary>> {
    let found = fixture.client.workloads(None, super::LOOK).await?;
    Ok(found.into_iter().map(|running| running.workload).collect())
}

impl Chaos {
    /// One fault, until all is well again.
    async fn fault(&mut self, fault: Fault) -> Result<()> {
        let before = self.restarts().await?;
        self.callers.take_failures();
        let began = Instant::now();
        if !Box::pin(self.strike(fault)).await? {
            return Ok(());
        }
        self.recover(fault).await;
        let worst = began.elapsed();
        let failures = self.callers.take_failures();
        let restarts = self.restarts().await?.saturating_sub(before);
        self.judge(fault, &failures, restarts);
        if let Some(row) = self.rows.get_mut(fault as usize) {
            row.times += 1;
            row.failed += failures.len();
            row.restarts += restarts;
            row.worst = row.worst.max(worst);
        }
        Ok(())
    }

    /// Whether there was something to kill.
    async fn strike(&mut self, fault: Fault) -> Result<bool> {
        let away = Duration::from_millis(self.rng.random_range(0..AWAY_MS));
        match fault {
            Fault::Node => {
                self.fixture.kill_node().await?;
                tokio::time::sleep(away).await;
                self.fixture.start_node()?;
            }
            Fault::Nats => {
                self.fixture.nats.kill9();
                tokio::time::sleep(away).await;
                self.fixture.nats.restart().await;
            }
            Fault::Bus | Fault::Agent => {
                let part = if fault == Fault::Bus { "server.conf" } else { "nex-agent" };
                let killed = self.kill_one_of(part);
                tokio::time::sleep(NOTICED).await;
                return Ok(killed);
            }
        }
        Ok(true)
    }

    /// Kills a process of the node's by a part of its command line.
    fn kill_one_of(&mut self, part: &str) -> bool {
        let processes = processes_of(&self.fixture.args.state_dir).into_iter();
        let chosen = processes.filter(|(_, line)| line.contains(part)).choose(&mut self.rng);
        let process = chosen.and_then(|(pid, _)| ProcessId::of(i32::try_from(pid).ok()?));
        process.is_some_and(|process| process.signal(Signal::SIGKILL).unwrap_or(false))
    }

    /// Until every function answers and every workload runs.
    async fn recover(&mut self, fault: Fault) {
        let fixture = &self.fixture;
        let all_run = async || {
            let found = running(fixture).await.unwrap_or_default();
            let up: Vec<&String> = found.iter().filter(|it| it.state == "running").map(|it| &it.id).collect();
            self.steady.iter().all(|id| up.iter().filter(|up| **up == id).count() == 1)
        };
        if !eventually(TIMEOUT, all_run).await {
            self.wrong.push(format!("after {} was killed, not all of {:?} run", fault.what(), self.steady));
        }
        if let Err(silent) = self.callers.all_answer().await {
            self.wrong.push(format!("after {} was killed, {silent:?} do not answer", fault.what()));
        }
    }

    fn judge(&mut self, fault: Fault, failures: &[Failure], restarts: u32) {
        let what = fault.what();
        let hit: BTreeSet<&str> = failures.iter().map(|failure| failure.subject.as_str()).collect();
        if hit.len() > fault.may_hit() {
            let errors: BTreeSet<&str> = failures.iter().map(|failure| failure.error.as_str()).collect();
            self.wrong.push(format!("when {what} was killed, calls of {hit:?} failed: {errors:?}"));
        }
        if restarts > fault.may_restart() {
            self.wrong.push(format!("when {what} was killed, {restarts} workloads were started again"));
        }
    }

    /// How often the steady workloads were started again, together.
    async fn restarts(&self) -> Result<u32> {
        let end = Instant::now() + TIMEOUT;
        while Instant::now() < end {
            let found = running(&self.fixture).await.unwrap_or_default();
            let steady: Vec<u32> = found.iter().filter(|it| self.steady.contains(&it.id)).map(|it| it.restarts).collect();
            if steady.len() == self.steady.len() {
                return Ok(steady.iter().sum());
            }
        }
        bail!("nobody tells of all that was deployed")
    }

    fn print(&self) {
        println!("  {:<16} {:>6} {:>13} {:>14} {:>14}", "killed", "times", "failed calls", "started again", "well within s");
        for fault in FAULTS {
            let Some(Row { times, failed, restarts, worst }) = self.rows.get(fault as usize) else { continue };
            println!("  {:<16} {times:>6} {failed:>13} {restarts:>14} {:>14.1}", fault.what(), worst.as_secs_f64());
        }
    }
}
