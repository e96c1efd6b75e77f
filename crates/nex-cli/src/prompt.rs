//! Asks for a secret at the terminal, and does not show what is typed.

use std::io::{self, Write as _};

use anyhow::Context as _;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// The terminal as it was, given back when this is dropped.
struct Silent(Termios);

impl Drop for Silent {
    fn drop(&mut self) {
        // There is nobody to tell.
        tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0).ok();
    }
}

/// Reads a line from the terminal without showing it.
pub(crate) fn secret(what: &str) -> anyhow::Result<String> {
    let before = tcgetattr(io::stdin()).context("cannot ask at this terminal; next: pipe the value in, or give a file")?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    silent.local_flags.insert(LocalFlags::ECHONL);
    tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent).context("cannot ask at this terminal; next: pipe the value in")?;
    let _given_back = Silent(before);
    write!(io::stderr(), "{what} (it is not shown): ")
        .and_then(|()| io::stderr().flush())
        .context("cannot ask at this terminal")?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("cannot read what was typed")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
