//! `nex-bench`: measures the numbers that nex promises, on one machine in one run. Run it with `cargo xtask bench`.
//!
//! Machines and their load differ, so ratios count: in every round every variant is measured next to a native NATS responder and
//! compared with it. Nothing is asserted.
//!
//! | module | content |
//! |---|---|
//! | [`fixture`] | a nats-server, a node, a client, deployed functions |
//! | [`child`] | this program run again as a responder or a node |
//! | [`load`] | generates load and summarizes latencies |
//! | [`streams`], [`http`] | functions by their triggers, beside what one would write by hand, which is [`server`] |
//! | [`calls`], [`deploys`], [`starts`], [`memory`], [`density`] | the measurements |
//! | [`microvm`] | the same and more for agents in microVMs |
//! | [`soak`] | no measurement: thousands of deploys, and everything killed under load |
//! | [`processes`] | memory and processor time of processes |
//! | [`results`], [`report`] | everything measured, as JSON and as tables |

mod calls;
mod child;
mod density;
mod deploys;
mod fixture;
mod http;
mod load;
mod memory;
mod microvm;
mod monitor;
mod plan;
mod processes;
mod report;
mod results;
mod server;
mod soak;
mod starts;
mod streams;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use monitor::Monitor;
use plan::Plan;
use results::Results;

const USAGE: &str =
    "usage: nex-bench [--quick] [--only calls,streams,http,deploys,starts,memory,density] [--calls direct:wasm-echo,…]
       [--in-flight 1,16,64] [--functions 1000] [--json FILE]
       nex-bench --microvm [--sandbox qemu|firecracker] [--quick] [--only boots,clones,transport,deploys,calls] [--json FILE]
better: cargo xtask bench";

/// The command line.
struct Options {
    plan: Plan,
    only: Option<Vec<String>>,
    json: Option<PathBuf>,
    /// Measure only microVMs, with this monitor.
    microvm: Option<Monitor>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self { plan: Plan::full(), only: None, json: None, microvm: None };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => options.plan = Plan::quick(),
                "--microvm" => options.microvm = options.microvm.or(Some(Monitor::Qemu)),
                "--sandbox" => {
                    let name = args.next().context(USAGE)?;
                    options.microvm = Some(Monitor::parse(&name).context(USAGE)?);
                }
                "--only" => options.only = Some(args.next().context(USAGE)?.split(',').map(str::to_owned).collect()),
                "--calls" => options.plan.calls = args.next().context(USAGE)?.split(',').map(str::to_owned).collect(),
                "--in-flight" => {
                    let numbers = args.next().context(USAGE)?;
                    options.plan.in_flight = numbers.split(',').map(str::parse).collect::<Result<_, _>>().context(USAGE)?;
                }
                "--functions" => options.plan.shared_functions = args.next().context(USAGE)?.parse().context(USAGE)?,
                "--json" => options.json = Some(args.next().context(USAGE)?.into()),
                _ => bail!(USAGE),
            }
        }
        if options.microvm.is_some() {
            options.plan = options.plan.for_microvms();
        }
        Ok(options)
    }

    fn wants(&self, what: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == what))
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, rest @ ..] = args.as_slice()
        && let Some(mode) = mode.strip_prefix("child-")
    {
        return child::main(mode, rest);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let [mode, rest @ ..] = args.as_slice()
        && mode == "--soak"
    {
        return runtime.block_on(Box::pin(soak::run(rest)));
    }
    let options = Options::parse(args.into_iter())?;
    let results = runtime.block_on(measure(&options))?;
    results.print();
    if let Some(path) = &options.json {
        let json = serde_json::to_vec_pretty(&results)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if results.microvms.is_some_and(|microvms| !microvms.failed.is_empty()) {
        bail!("not everything could be measured");
    }
    Ok(())
}

async fn measure(options: &Options) -> Result<Results> {
    let plan = &options.plan;
    let mut results = Results::new(plan);
    if let Some(monitor) = options.microvm {
        microvm::steps::listen()?;
        results.microvms = Some(Box::pin(microvm::measure(plan, monitor, |what| options.wants(what))).await?);
        return Ok(results);
    }
    if options.wants("starts") {
        results.starts = Some(Box::pin(starts::measure(plan)).await.context("measuring starts")?);
    }
    if options.wants("deploys") {
        results.deploys = Box::pin(deploys::measure(plan, fixture::Way::Direct)).await.context("measuring deploys")?;
    }
    if options.wants("memory") {
        results.memory = Some(Box::pin(memory::measure(plan)).await.context("measuring memory")?);
    }
    if options.wants("density") {
        results.density = Box::pin(density::measure(plan)).await.context("measuring functions that share an agent")?;
    }
    if options.wants("streams") {
        results.streams = Box::pin(streams::measure(plan)).await.context("measuring messages of streams")?;
    }
    if options.wants("http") {
        results.http = Box::pin(http::measure(plan)).await.context("measuring HTTP")?;
    }
    if options.wants("calls") {
        results.calls = Box::pin(calls::measure(plan, &calls::WAYS)).await.context("measuring calls")?;
    }
    Ok(results)
}
