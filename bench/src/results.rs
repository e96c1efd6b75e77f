//! All results: printed for people, serialized for programs.
#![expect(clippy::print_stdout, reason = "the report of a program for the terminal")]

use serde::Serialize;

use crate::density::Density;
use crate::memory::Memory;
use crate::microvm::MicroVms;
use crate::plan::Plan;
use crate::report::{line, print_calls, print_deploys};
use crate::starts::Starts;
use crate::{calls, deploys, http, streams};

/// All results.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    plan: Plan,
    machine: Machine,
    pub(crate) calls: Vec<calls::Row>,
    pub(crate) streams: Vec<streams::Row>,
    pub(crate) http: Vec<http::Row>,
    pub(crate) deploys: Vec<deploys::Row>,
    pub(crate) starts: Option<Starts>,
    pub(crate) memory: Option<Memory>,
    pub(crate) density: Vec<Density>,
    pub(crate) microvms: Option<MicroVms>,
}

/// The machine, to tell which numbers are comparable.
#[derive(Debug, Serialize)]
struct Machine {
    arch: &'static str,
    cores: usize,
    /// Load average of the last minute before the measurements.
    load: String,
}

impl Results {
    pub(crate) fn new(plan: &Plan) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let machine = Machine {
            arch: std::env::consts::ARCH,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load: load.split_whitespace().next().unwrap_or("?").to_owned(),
        };
        Self {
            plan: plan.clone(),
            machine,
            calls: Vec::new(),
            streams: Vec::new(),
            http: Vec::new(),
            deploys: Vec::new(),
            starts: None,
            memory: None,
            density: Vec::new(),
            microvms: None,
        }
    }

    pub(crate) fn print(&self) {
        let Machine { arch, cores, load } = &self.machine;
        println!("{arch}, {cores} cores, load {load} at the start");
        if let Some(microvms) = &self.microvms {
            crate::microvm::print::print(microvms, &self.plan);
        }
        print_calls(&self.calls, &self.plan);
        streams::print(&self.streams, &self.plan);
        http::print(&self.http, &self.plan);
        print_deploys(&self.deploys, &self.plan);
        if let Some(starts) = &self.starts {
            println!("\nStart of a node, new state directory ({} times)\n", starts.first_bid.count);
            println!("  {:<44} {:>8} {:>8}", "ms from the start of its process to", "p50", "p99");
            line("the end of a process that does nothing", &starts.bare_process);
            line("its first bid", &starts.first_bid);
            line("its answer to the PING after that", &starts.ping);
            line("its first warm agent", &starts.warm_agent);
        }
        if let Some(memory) = &self.memory {
            println!("\nMemory of its own, MiB\n");
            println!("  {:<44} {:>8.2}", format!("an idle agent (of {})", memory.agents), memory.idle_agent_mib);
            for (name, mib) in &memory.with_function_mib {
                println!("  {:<44} {mib:>8.2}", format!("an agent with {name}, called once (of {})", memory.functions));
            }
            println!("  {:<44} {:>8.2}", "the node", memory.node_mib);
        }
        for density in &self.density {
            let Density { name, functions, deploy_seconds, agent_kib, node_kib, first_call_us, next_call_us, info_ms, ps_ms } =
                density;
            println!("\n{functions} functions {name} on one agent, deployed in {deploy_seconds:.1} s\n");
            println!("  {:<44} {agent_kib:>8.1}", "KiB of the agent for each, idle");
            println!("  {:<44} {node_kib:>8.1}", "KiB of the node for each");
            println!("  {:<44} {first_call_us:>8.0}", "µs of a call after a long while, p50");
            println!("  {:<44} {next_call_us:>8.0}", "µs of the next one, p50");
            println!("  {:<44} {info_ms:>8.1}", "ms of a node's info, p50");
            println!("  {:<44} {ps_ms:>8.1}", "ms of a list of all, p50");
        }
    }
}
