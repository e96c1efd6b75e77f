//! Results of the checks.

use serde::Serialize;

use crate::output::Output;

/// Result of one check.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) what: String,
    pub(super) satisfied: bool,
    /// Whether a node needs it to start. Others only weaken the node, as its tags say.
    pub(super) required: bool,
    pub(super) found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

impl Check {
    pub(super) fn new(what: impl Into<String>, required: bool, found: anyhow::Result<String>, next: &str) -> Self {
        let what = what.into();
        match found {
            Ok(found) => Self { what, satisfied: true, required, found, next: None },
            Err(error) => Self { what, satisfied: false, required, found: describe(&error), next: Some(next.to_owned()) },
        }
    }

    /// Whether it prevents a node from starting.
    pub(super) fn fails(&self) -> bool {
        self.required && !self.satisfied
    }
}

/// Formats an error without its advice (the list has its own) and without repetitions.
fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for part in error.chain().map(ToString::to_string) {
        let what = part.split_once("; next: ").map_or(part.as_str(), |(what, _advice)| what);
        if !text.contains(what) {
            text = if text.is_empty() { what.to_owned() } else { format!("{text}: {what}") };
        }
    }
    text
}

/// Prints the list.
pub(super) fn print(checks: &[Check], output: &mut Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.document(&checks);
    }
    for check in checks {
        match (check.satisfied, check.required) {
            (true, _) => output.line(format_args!("✅ Dependency Satisfied - {} [{}]", check.found, check.what))?,
            (false, true) => output.line(format_args!("⛔ Dependency Missing - {}: {}", check.what, check.found))?,
            (false, false) => output.line(format_args!("⚠️  Weaker without - {}: {}", check.what, check.found))?,
        }
        if let Some(next) = check.next.as_ref().filter(|next| !next.is_empty()) {
            output.line(format_args!("   next: {next}"))?;
        }
    }
    Ok(())
}
