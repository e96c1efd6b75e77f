//! `nex-bench`: what nex promises in numbers, measured on one machine in one go. Run by `cargo xtask bench`.
//!
//! Machines and their load differ, so what counts are ratios: every variant takes its turn in every round beside a native NATS
//! responder, and is compared with the responder of the same round. Nothing is asserted; the numbers are for people to judge.
//!
//! | room | what is in it |
//! |---|---|
//! | [`world`] | a nats-server, a node, a native responder, deployed functions |
//! | [`child`] | this program run again as a responder or a node |
//! | [`load`] | requests, so many in flight, and how long each took |
//! | [`calls`], [`deploys`], [`starts`], [`memory`] | the measurements |
//! | [`microvm`] | the same and more for agents in microVMs |
//! | [`processes`] | what the kernel says of processes |
//! | [`results`], [`report`] | everything measured, as JSON and as tables |

mod calls;
mod child;
mod deploys;
mod load;
mod memory;
mod microvm;
mod plan;
mod processes;
mod report;
mod results;
mod starts;
mod world;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use microvm::Monitor;
use plan::Plan;
use results::Results;

const USAGE: &str = "usage: nex-bench [--quick] [--only calls,deploys,starts,memory] [--calls direct:wasm-echo,…]
       [--in-flight 1,16,64] [--json FILE]
       nex-bench --microvm [--sandbox qemu|firecracker] [--quick] [--only boots,clones,transport,deploys,calls] [--json FILE]
better: cargo xtask bench";

/// What was asked for on the command line.
struct Wish {
    plan: Plan,
    only: Option<Vec<String>>,
    json: Option<PathBuf>,
    /// MicroVMs are measured, and nothing else.
    microvm: Option<Monitor>,
}

impl Wish {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut wish = Self { plan: Plan::full(), only: None, json: None, microvm: None };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => wish.plan = Plan::quick(),
                "--microvm" => wish.microvm = wish.microvm.or(Some(Monitor::Qemu)),
                "--sandbox" => {
                    let name = args.next().context(USAGE)?;
                    wish.microvm = Some(Monitor::parse(&name).context(USAGE)?);
                }
                "--only" => wish.only = Some(args.next().context(USAGE)?.split(',').map(str::to_owned).collect()),
                "--calls" => wish.plan.calls = args.next().context(USAGE)?.split(',').map(str::to_owned).collect(),
                "--in-flight" => {
                    let numbers = args.next().context(USAGE)?;
                    wish.plan.in_flight = numbers.split(',').map(str::parse).collect::<Result<_, _>>().context(USAGE)?;
                }
                "--json" => wish.json = Some(args.next().context(USAGE)?.into()),
                _ => bail!(USAGE),
            }
        }
        if wish.microvm.is_some() {
            wish.plan = wish.plan.for_microvms();
        }
        Ok(wish)
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
    let wish = Wish::parse(args.into_iter())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let results = runtime.block_on(measure(&wish))?;
    results.print();
    if let Some(path) = &wish.json {
        let json = serde_json::to_vec_pretty(&results)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if results.microvms.is_some_and(|microvms| !microvms.failed.is_empty()) {
        bail!("not everything could be measured");
    }
    Ok(())
}

async fn measure(wish: &Wish) -> Result<Results> {
    let plan = &wish.plan;
    let mut results = Results::new(plan);
    if let Some(monitor) = wish.microvm {
        microvm::steps::listen()?;
        results.microvms = Some(Box::pin(microvm::measure(plan, monitor, |what| wish.wants(what))).await?);
        return Ok(results);
    }
    if wish.wants("starts") {
        results.starts = Some(Box::pin(starts::measure(plan)).await.context("measuring starts")?);
    }
    if wish.wants("deploys") {
        results.deploys = Box::pin(deploys::measure(plan, world::Way::Direct)).await.context("measuring deploys")?;
    }
    if wish.wants("memory") {
        results.memory = Some(Box::pin(memory::measure(plan)).await.context("measuring memory")?);
    }
    if wish.wants("calls") {
        results.calls = Box::pin(calls::measure(plan, &calls::WAYS)).await.context("measuring calls")?;
    }
    Ok(results)
}
