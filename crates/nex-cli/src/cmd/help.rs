//! `nex help`: of a command, or of a topic that many commands have in common.

use clap::{Args, Command};
use serde_json::json;

use crate::check::Usage;
use crate::output::Output;

/// What there is to read about.
const TOPICS: [(&str, &str); 6] = [
    ("contexts", include_str!("../help/contexts.txt")),
    ("permissions", include_str!("../help/permissions.txt")),
    ("policies", include_str!("../help/policies.txt")),
    ("sandbox", include_str!("../help/sandbox.txt")),
    ("secrets", include_str!("../help/secrets.txt")),
    ("triggers", include_str!("../help/triggers.txt")),
];

/// `nex help`
#[derive(Debug, Args)]
pub(crate) struct HelpArgs {
    /// A command, such as devrun or node up, or a topic: contexts, permissions, policies, sandbox, secrets, triggers
    #[arg(value_name = "COMMAND|TOPIC")]
    words: Vec<String>,
}

/// Prints the help of a command, or the text of a topic.
pub(crate) fn run(args: &HelpArgs, mut command: Command, output: &mut Output) -> anyhow::Result<()> {
    if let [word] = args.words.as_slice()
        && let Some((_, text)) = TOPICS.iter().find(|(name, _)| name == word)
    {
        return print(word, text, output);
    }
    command.build();
    let mut found = &mut command;
    for word in &args.words {
        let names: Vec<String> = found.get_subcommands().map(|it| it.get_name().to_owned()).collect();
        match found.find_subcommand_mut(word) {
            Some(inner) => found = inner,
            None => {
                let topics: Vec<&str> = TOPICS.iter().map(|(name, _)| *name).collect();
                let why = format!("'{word}' is neither a command nor a topic");
                return Err(
                    Usage(format!("{why}; next: commands are {}; topics are {}", names.join(", "), topics.join(", "))).into()
                );
            }
        }
    }
    let text = found.render_long_help().to_string();
    print(&args.words.join(" "), &text, output)
}

fn print(about: &str, text: &str, output: &mut Output) -> anyhow::Result<()> {
    let text = text.trim_end();
    if output.is_json() { output.document(&json!({ "about": about, "text": text })) } else { output.line(text) }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn topics_fit_a_page_and_a_terminal() {
        for (name, text) in TOPICS {
            let widest = text.lines().map(UnicodeWidthStr::width).max();
            assert!(text.lines().count() <= 32 && widest <= Some(80), "{name}: {widest:?}");
        }
    }
}
