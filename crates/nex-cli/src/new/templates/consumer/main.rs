//! Called with each message of the stream until it has dealt with it: success acknowledges, an exit code other than 0 has it tried again
//! after a pause, and what fails for good is kept: nex dead ls. Standard input is the message, standard error the log.

use std::io::Read;
use std::process::ExitCode;

/// Deals with an order, a line of JSON.
fn handle(order: &str) -> Result<(), String> {
    let order = order.trim();
    if !(order.starts_with('{') && order.ends_with('}')) {
        return Err(format!("this is no order: {order}"));
    }
    eprintln!("done: {order}");
    Ok(())
}

fn main() -> ExitCode {
    let mut order = String::new();
    let done = std::io::stdin().read_to_string(&mut order).map_err(|error| error.to_string()).and_then(|_| handle(&order));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_orders_are_dealt_with() {
        assert!(super::handle("{\"id\": 1}\n").is_ok());
        assert!(super::handle("bad").is_err());
    }
}
