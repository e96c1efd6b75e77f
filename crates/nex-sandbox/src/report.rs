//! How a sandbox ended.

use std::fmt;

use nex_process::Exit;

/// How a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitReport {
    /// How its first process ended; unknown for one that was adopted.
    pub exit: Exit,
    /// Whether the kernel killed something in it because its memory ran out.
    pub out_of_memory: bool,
    /// The last lines that its agent wrote to standard error.
    pub stderr_tail: Vec<String>,
}

/// Lines of standard error shown in a message.
const SHOWN_LINES: usize = 3;

impl ExitReport {
    /// What a tool said last, without its name; how it ended where it said nothing.
    #[must_use]
    pub fn reason(&self) -> String {
        match self.stderr_tail.last() {
            Some(line) if !self.out_of_memory => line.strip_prefix("nex-agent: ").unwrap_or(line).to_owned(),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.exit)?;
        if self.out_of_memory {
            f.write_str(", out of memory")?;
        }
        // The very last line may be the kernel's, which only says that the machine goes down.
        let shown = self.stderr_tail.len().saturating_sub(SHOWN_LINES);
        match self.stderr_tail.get(shown..).filter(|lines| !lines.is_empty()) {
            Some(lines) => write!(f, ": {}", lines.join(" / ")),
            None => Ok(()),
        }
    }
}
