//! Tables for the terminal.
#![expect(clippy::print_stdout, reason = "the report of a program for the terminal")]

use crate::load::{Summary, Times};
use crate::plan::Plan;
use crate::{calls, deploys};

/// Prints a table of calls.
pub(crate) fn print_calls(rows: &[calls::Row], plan: &Plan) {
    if rows.is_empty() {
        return;
    }
    let Plan { rounds, payload_bytes, .. } = plan;
    println!(
        "\nCalls of {payload_bytes} bytes; median of {rounds} rounds, ratios to the native responder of the same round (min..max)\n"
    );
    println!(
        "  {:<9} {:<10} {:>9} {:>8} {:>8} {:>9} {:>8}   {:<18} {:<18} {:<18}",
        "way", "variant", "in flight", "p50 µs", "p99 µs", "calls/s", "CPU µs", "p50 ratio", "p99 ratio", "calls/s ratio"
    );
    for row in rows {
        println!(
            "  {:<9} {:<10} {:>9} {:>8.0} {:>8.0} {:>9.0} {:>8.1}   {:<18} {:<18} {:<18}",
            row.way,
            row.variant,
            row.in_flight,
            row.p50_us.median,
            row.p99_us.median,
            row.calls_per_second.median,
            row.cpu_us.median,
            summary(&row.p50_ratio),
            summary(&row.p99_ratio),
            summary(&row.rate_ratio),
        );
    }
}

/// Prints a table of deploys.
pub(crate) fn print_deploys(rows: &[deploys::Row], plan: &Plan) {
    if rows.is_empty() {
        return;
    }
    println!("\nDeploys of a cached artifact to a warm agent ({} each)\n", plan.deploys);
    println!("  {:<44} {:>8} {:>8}", "ms from the request to the reply", "p50", "p99");
    for row in rows {
        line(&format!("deploy {}", row.what), &row.deploy);
        line("  and stop", &row.stop);
    }
}

pub(crate) fn line(what: &str, times: &Times) {
    println!("  {what:<44} {:>8.1} {:>8.1}", times.p50_ms, times.p99_ms);
}

pub(crate) fn summary(summary: &Summary) -> String {
    format!("{:.2} ({:.2}..{:.2})", summary.median, summary.min, summary.max)
}
