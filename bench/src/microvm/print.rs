//! Prints the results of microVMs.
#![expect(clippy::print_stdout, reason = "the report of a program for the terminal")]

use super::MicroVms;
use super::boots::{Boots, Step};
use super::clones::Clones;
use crate::load::Times;
use crate::plan::Plan;
use crate::report::{print_calls, print_deploys, summary};

pub(crate) fn print(microvms: &MicroVms, plan: &Plan) {
    println!("microVMs: {:?}, {}", microvms.monitor, microvms.accel);
    if microvms.accel == "emulation" {
        println!(
            "EMULATED: guests run on translated instructions, many times slower than on KVM. Only the ratios are meaningful."
        );
    }
    if let Some(boots) = &microvms.boots {
        print_boots(boots);
    }
    if let Some(clones) = &microvms.clones {
        print_clones(clones);
    }
    print_calls(&microvms.transport, plan);
    print_deploys(&microvms.deploys, plan);
    print_calls(&microvms.calls, plan);
    for why in &microvms.failed {
        println!("\nNOT MEASURED {why}");
    }
}

fn print_boots(boots: &Boots) {
    println!("\nFrom nothing to the handshake, ms\n");
    println!("  {:<44} {:>8} {:>8} {:>8} {:>4}", "", "median", "min", "max", "n");
    times("nothing in it: kernel, init, end of the monitor", &boots.bare);
    times("cold boot to handshake", &boots.cold);
    times("restored from a snapshot, to handshake", &boots.restored);
    println!("  {:<44} {}", "cold / nothing in it", summary(&boots.cold_to_bare));
    println!("  {:<44} {}", "restored / cold", summary(&boots.restored_to_cold));
    for (what, ms) in [("cold", &boots.cold_cpu_ms), ("restored", &boots.restored_cpu_ms)] {
        let what = format!("monitor's CPU time, {what}");
        println!("  {what:<44} {:>8.1} {:>8.1} {:>8.1}", ms.median, ms.min, ms.max);
    }
    steps("Steps of a cold boot", &boots.cold_steps);
    steps("Steps of a restore", &boots.restored_steps);
}

fn steps(what: &str, steps: &[Step]) {
    println!("\n{what}, ms since the one before\n");
    println!("  {:<44} {:>8} {:>8} {:>8}", "", "median", "min", "max");
    for Step { name, ms, .. } in steps {
        println!("  {name:<44} {:>8.1} {:>8.1} {:>8.1}", ms.median, ms.min, ms.max);
    }
}

fn print_clones(clones: &Clones) {
    println!("\nMemory of a monitor's process, guest included, warm and idle, MiB for each\n");
    println!("  {:<44} {:>8} {:>8} {:>8} {:>8}", "", "PSS", "private", "RSS", "CPU %");
    for row in &clones.memory {
        let what = format!("{} clones", row.clones);
        let (pss, private, rss, cpu) = (row.pss_mib, row.private_mib, row.rss_mib, row.idle_cpu_percent);
        println!("  {what:<44} {pss:>8.1} {private:>8.1} {rss:>8.1} {cpu:>8.1}");
    }
    println!("\nClones\n");
    let Clones { agents, at_once, refills, .. } = clones;
    let what = format!("agents/s, {agents} with {at_once} at once, {refills} times");
    println!("  {what:<44} {}", summary(&clones.agents_per_second));
    println!("  {:<44} {:>8} {:>8} {:>8} {:>4}", "", "median", "min", "max", "n");
    times("ms from stop to nothing left", &clones.stop);
}

fn times(what: &str, times: &Times) {
    println!("  {what:<44} {:>8.1} {:>8.1} {:>8.1} {:>4}", times.p50_ms, times.min_ms, times.max_ms, times.count);
}
