//! Called with each message on its trigger: standard input is the payload, standard output the reply, standard error the log.

use std::io::{Read, Write};

fn greeting(name: &str) -> String {
    let name = if name.is_empty() { "world" } else { name };
    format!("Hello, {name}!")
}

fn main() -> std::io::Result<()> {
    let mut payload = String::new();
    std::io::stdin().read_to_string(&mut payload)?;
    std::io::stdout().write_all(greeting(payload.trim()).as_bytes())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_greets() {
        assert_eq!(super::greeting("Ada"), "Hello, Ada!");
        assert_eq!(super::greeting(""), "Hello, world!");
    }
}
