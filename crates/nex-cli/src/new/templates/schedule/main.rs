//! Called each time that the schedule in nex.toml comes: once, however many copies run. An exit code other than 0 has it called again
//! after a pause. Standard error is the log.

fn report(schedule: &str) -> String {
    format!("run by {schedule}")
}

fn main() {
    let schedule = std::env::args().nth(1).unwrap_or_default();
    eprintln!("{}", report(&schedule));
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_names_its_schedule() {
        assert_eq!(super::report("every:1m"), "run by every:1m");
    }
}
