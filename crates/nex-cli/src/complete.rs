//! Completes what only the nodes know (workloads, nodes, namespaces, secrets), and contexts. What a shell shows comes from the network, so
//! nothing is given to it but letters, digits and the punctuation of names; where there is no answer soon, there is nothing to complete.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use clap_complete::engine::CompletionCandidate;
use nex_protocol::control::WorkloadPingRequest;

use crate::args::ConnectionArgs;
use crate::env::Env;
use crate::keys;
use crate::session::{self, Session};

/// Longest time for all of it: somebody waits at a prompt.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long answers of nodes are collected.
const DISCOVERY: Duration = Duration::from_millis(500);
/// Most candidates.
const MOST: usize = 200;

/// The flags about the connection, of a command line that is still being written.
#[derive(Parser)]
struct Reach {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Names and ids of workloads.
pub(crate) fn workloads(current: &OsStr) -> Vec<CompletionCandidate> {
    from_nodes(current, async |session, current| {
        let found = session.client.workloads(None, DISCOVERY).await.unwrap_or_default();
        let names = found.iter().map(|running| running.workload.name.clone());
        // Ids are for who has begun to write one.
        let ids = found.iter().map(|running| running.workload.id.clone()).filter(|_| !current.is_empty());
        names.chain(ids).collect()
    })
}

/// Names of nodes, and their ids.
pub(crate) fn nodes(current: &OsStr) -> Vec<CompletionCandidate> {
    from_nodes(current, async |session, current| {
        let found = session.client.nodes(DISCOVERY).await.unwrap_or_default();
        let names = found.iter().filter_map(|node| node.tags.get("node_name").cloned());
        let ids = found.iter().map(|node| node.node_id.clone()).filter(|_| !current.is_empty());
        names.chain(ids).collect()
    })
}

/// Ids of nodes.
pub(crate) fn node_ids(current: &OsStr) -> Vec<CompletionCandidate> {
    from_nodes(current, async |session, _| {
        session.client.nodes(DISCOVERY).await.unwrap_or_default().into_iter().map(|node| node.node_id).collect()
    })
}

/// Namespaces in which something runs.
pub(crate) fn namespaces(current: &OsStr) -> Vec<CompletionCandidate> {
    from_nodes(current, async |session, _| {
        let more = WorkloadPingRequest::default();
        let found = session.client.find_everywhere(None, &more, DISCOVERY).await.unwrap_or_default();
        found.running.into_iter().map(|running| running.workload.namespace).collect()
    })
}

/// Names of our secrets.
pub(crate) fn secrets(current: &OsStr) -> Vec<CompletionCandidate> {
    let Ok(Some(own)) = keys::known_issuer(None, &Env::read()) else { return Vec::new() };
    from_nodes(current, async |session, _| {
        let found = Box::pin(session.client.secrets(session.jetstream_domain.as_deref())).await.unwrap_or_default();
        found.into_iter().filter(|secret| secret.issuer == own.public_key()).map(|secret| secret.name.to_string()).collect()
    })
}

/// Names of NATS contexts.
pub(crate) fn contexts(current: &OsStr) -> Vec<CompletionCandidate> {
    let directory = Env::read().directories.config.join("nats/context");
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".json")?.to_owned()));
    candidates(current, names.collect())
}

fn from_nodes(current: &OsStr, ask: impl AsyncFnOnce(&Session, &str) -> Vec<String>) -> Vec<CompletionCandidate> {
    let words: Vec<String> =
        std::env::args_os().skip_while(|word| word != "--").skip(2).filter_map(|word| word.into_string().ok()).collect();
    let text = current.to_string_lossy().into_owned();
    let found = || -> Option<Vec<String>> {
        let connection = connection(&words)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let asked = async {
            let session = session::open(&connection, &Env::read()).await.ok()?;
            Some(ask(&session, &text).await)
        };
        runtime.block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, asked).await.ok().flatten() })
    };
    candidates(current, found().unwrap_or_default())
}

/// The connection that a command line means, of which the rest may be anything.
fn connection(words: &[String]) -> Option<ConnectionArgs> {
    let command = Reach::command();
    let takes_value = |flag: &str| {
        let named = command.get_arguments().find(|arg| {
            let long = arg.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long));
            long || arg.get_short().is_some_and(|short| flag == format!("-{short}"))
        });
        named.map(|arg| arg.get_action().takes_values())
    };
    let mut line = vec!["nex".to_owned()];
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let flag = word.split_once('=').map_or(word.as_str(), |(flag, _)| flag);
        match takes_value(flag) {
            Some(true) if flag == word => {
                // The one that is being written has no value yet.
                let Some(value) = words.next() else { break };
                line.extend([word.clone(), value.clone()]);
            }
            Some(_) => line.push(word.clone()),
            None => {}
        }
    }
    let matches = Reach::command().try_get_matches_from(line).ok()?;
    let mut reach = Reach::from_arg_matches(&matches).ok()?;
    reach.connection.note_typed(&matches);
    Some(reach.connection)
}

/// Those that begin so, and that a shell takes for nothing but words.
fn candidates(current: &OsStr, found: Vec<String>) -> Vec<CompletionCandidate> {
    let begun = current.to_string_lossy();
    let is_word = |text: &String| {
        let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        (1..=128).contains(&text.len()) && is_plain && !text.starts_with('-')
    };
    let fitting: BTreeSet<String> = found.into_iter().filter(|text| is_word(text) && text.starts_with(&*begun)).collect();
    fitting.into_iter().take(MOST).map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(found: &[&str], begun: &str) -> Vec<String> {
        let found = found.iter().map(|text| (*text).to_owned()).collect();
        candidates(OsStr::new(begun), found).iter().map(|it| it.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_shell_is_given_nothing_but_words() {
        assert_eq!(texts(&["b", "a", "a", "", "-rf", "$(reboot)", "a b", "x;y", "*", "\u{1b}[2J"], ""), ["a", "b"]);
        assert_eq!(texts(&["echo", "other"], "e"), ["echo"]);
    }

    #[test]
    fn the_flags_about_the_connection_are_found_wherever_they_stand() {
        let reach = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let connection = connection(&words).unwrap();
            (connection.server.clone(), connection.namespace.to_string())
        };
        let server = Some("nats://a".to_owned());
        assert_eq!(reach(&["-s", "nats://a", "stop", "--wide", "ec"]), (server.clone(), "default".to_owned()));
        assert_eq!(reach(&["logs", "--node", "x", "--namespace=shop", "--server", "nats://a", ""]), (server, "shop".to_owned()));
        assert_eq!(reach(&["ps", "--namespace"]).1, "default");
    }
}
