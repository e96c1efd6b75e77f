//! A command line that is none: what is wrong with it, and what was probably meant.

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::check::Usage;
use crate::cli::Cli;
use crate::output::Output;

/// What words of other tools are here: below which command (none is `nex` itself), which words, and what does that.
const MEANT: [(&str, &[&str], &str); 14] = [
    ("", &["deploy", "start", "launch", "create", "push", "publish", "exec"], "'nex devrun FILE' uploads a file and runs it"),
    ("", &["dev", "watch", "serve"], "'nex devrun FILE --watch' has each save live at once"),
    ("", &["init", "generate", "scaffold"], "'nex new NAME' begins a function or service"),
    ("", &["ls", "list", "status"], "'nex ps' lists what runs, 'nex node ls' the nodes"),
    ("", &["rm", "remove", "delete", "kill", "destroy", "undeploy", "down"], "'nex stop NAME' stops what runs under a name"),
    ("", &["inspect", "info", "show", "get"], "'nex describe NAME' shows a workload, 'nex node info NODE' a node"),
    ("", &["req", "request", "invoke", "trigger", "pub"], "'nex call NAME PAYLOAD' calls a function"),
    ("", &["restart", "redeploy", "update", "replace"], "'nex devrun FILE' again replaces what runs, without a lost call"),
    ("", &["scale"], "'nex devrun FILE --copies COUNT' says how many copies run"),
    ("", &["revert", "undo"], "'nex rollback NAME' brings back the version before"),
    ("", &["context", "contexts", "ctx", "login", "config"], "contexts are those of the NATS CLI, see 'nex help contexts'"),
    ("node", &["start", "run"], "'nex node up' runs a node"),
    ("secret", &["get", "show"], "no command shows a secret's value; 'nex secret set NAME' gives it a new one"),
    ("secret", &["put", "add", "create"], "'nex secret set NAME' sets one"),
];

/// Says instead of words that are spelt alike what does what is probably meant.
fn advised(mut error: clap::Error) -> clap::Error {
    let usage = error.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
    let words = usage.split_whitespace().skip_while(|word| *word != "nex").skip(1);
    let above = words.take_while(|word| !word.starts_with(['[', '<', '-'])).collect::<Vec<_>>().join(" ");
    if matches!(above.as_str(), "devrun" | "run") && is_of_a_program(&error) {
        error.remove(ContextKind::SuggestedArg);
        let tip = "words for the program itself go into --argv, as in --argv '--port 80'";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        let what = if above == "run" { "<URL> <NODE>" } else { "<FILE>" };
        let usage = format!("Usage: nex {above} [OPTIONS] {what} [KEY=VALUE]...");
        error.insert(ContextKind::Usage, ContextValue::StyledStr(usage.into()));
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let found = MEANT.iter().find(|(below, words, _)| *below == above && words.contains(&word.as_str()));
    if let Some((_, _, tip)) = found {
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![(*tip).into()]));
    }
    error
}

/// Whether a flag is unknown and no other one is spelt nearly so: it may be meant for the program that is to run.
fn is_of_a_program(error: &clap::Error) -> bool {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let near = |flag: &str| strsim::levenshtein(flag, text(ContextKind::SuggestedArg).unwrap_or_default()) <= 3;
    error.kind() == ErrorKind::UnknownArgument && text(ContextKind::InvalidArg).is_some_and(|flag| !near(flag))
}

/// Takes out of the usage line the flags that only a variable gives: who reads it would take them for necessary.
fn without_variables(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::StyledStr(shown)) = error.get(ContextKind::Usage) else { return error };
    let mut usage = shown.to_string();
    let typed: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    for flag in flags_with_variables(&Cli::command()) {
        let is_typed = |word: &String| word.strip_prefix(&flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
        let Some((before, after)) = usage.split_once(&format!(" {flag} <")).filter(|_| !typed.iter().any(is_typed)) else {
            continue;
        };
        usage = format!("{before}{}", after.split_once('>').map_or("", |(_, rest)| rest));
    }
    if usage != shown.to_string() {
        error.insert(ContextKind::Usage, ContextValue::StyledStr(usage.into()));
    }
    error
}

/// The flags of a command and those below it that a variable stands for.
fn flags_with_variables(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter(|arg| arg.get_env().is_some());
    let own = own.filter_map(|arg| arg.get_long().map(|long| format!("--{long}")));
    own.chain(command.get_subcommands().flat_map(flags_with_variables)).collect()
}

/// Says what is wrong with a command line, and ends the process; with `--json` as other failures are told.
pub(crate) fn end(error: clap::Error) -> ! {
    let error = without_variables(advised(error));
    let wants_json = std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json");
    if !error.use_stderr() || !wants_json {
        error.exit();
    }
    let code = u8::try_from(error.exit_code()).unwrap_or(2);
    Output::new(true, true).failure(&Usage(as_failure(&error.to_string())).into(), code, None);
    #[expect(clippy::exit, reason = "as the library's own end of the process")]
    std::process::exit(i32::from(code))
}

/// What clap says in several paragraphs, as one failure with what to do next.
fn as_failure(text: &str) -> String {
    let mut parts = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let what = parts.next().unwrap_or_default();
    let advice: Vec<String> = parts.filter(|part| !part.is_empty() && !part.starts_with("For more information")).collect();
    let what = what.strip_prefix("error: ").unwrap_or(&what);
    let next = if advice.is_empty() { "see --help".to_owned() } else { advice.join("; ") };
    if what.contains("; next: ") { what.to_owned() } else { format!("{what}; next: {next}") }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn what_is_wrong_with_a_command_line_is_one_failure_with_what_to_do() {
        let error = |line: &str| as_failure(&Cli::try_parse_from(line.split(' ')).unwrap_err().to_string());
        let told = error("nex devrum");
        assert!(told.starts_with("unrecognized subcommand 'devrum'; next: tip: a similar subcommand exists: 'devrun'"), "{told}");
        assert_eq!(error("nex ps --timeout soon").matches("; next: ").count(), 1);
        assert_eq!(error("nex devrun x --trigger strem:A").matches("; next: ").count(), 1);
    }

    #[test]
    fn words_of_other_tools_are_answered_with_what_does_that_here() {
        let told = |line: &str| advised(Cli::try_parse_from(line.split(' ')).unwrap_err()).to_string();
        for (line, tip) in [
            ("nex deploy echo.js", "'nex devrun FILE'"),
            ("nex secret get db", "no command shows a secret's value"),
            ("nex node start", "'nex node up'"),
            ("nex --json ls", "'nex ps'"),
        ] {
            let text = told(line);
            assert!(text.contains(tip) && !text.contains("similar"), "{line}: {text}");
        }
        let flag = told("nex devrun ./service --port 80");
        assert!(flag.contains("--argv") && !flag.contains("similar") && !flag.contains("--stop-grace"), "{flag}");
        assert!(told("nex devrun x --trigger_subjct a").contains("'--trigger_subject'"));
        assert!(told("nex devrum x").contains("'devrun'"), "what is misspelt is found by its letters");
        for (below, words, _) in MEANT {
            let command = Cli::command();
            let command = if below.is_empty() { &command } else { command.find_subcommand(below).unwrap() };
            for word in words {
                assert!(command.find_subcommand(word).is_none(), "{word} is a command");
            }
        }
    }
}
