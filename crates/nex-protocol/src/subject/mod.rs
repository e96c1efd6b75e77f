//! Every subject, built and parsed; no other file formats one.

mod discovery;
mod pattern;

pub use self::discovery::{Discovery, ServiceQuestion, function_service};
pub use self::pattern::{covers, is_valid_pattern, overlap, reaches_reserved};

use crate::id::{Namespace, NodeId, WorkloadId, WorkloadName};

/// A control verb and whom it is for, parsed from the subject of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// `$NEX.AUCTION`
    Auction,
    /// `$NEX.PING` and `$NEX.PING.<node>`
    Ping,
    /// `$NEX.WPING.<ns>[.<workload id or name>]`
    WorkloadPing {
        /// Namespace asked about.
        namespace: String,
        /// Id or name asked for; all of the namespace without it.
        workload: Option<String>,
    },
    /// `$NEX.INFO.<ns>.<node>`
    Info {
        /// Whose workloads to list.
        namespace: String,
    },
    /// `$NEX.DEPLOY.<ns>.<node>`
    Deploy {
        /// Where the workload will live.
        namespace: String,
    },
    /// `$NEX.STOP.<ns>.<node>`
    Stop {
        /// Where the workload lives.
        namespace: String,
    },
    /// `$NEX.LAMEDUCK.<node>`
    LameDuck,
    /// `$NEX.HISTORY.<ns>.<node>.<logs|events>` (new)
    History {
        /// Whose.
        namespace: String,
        /// Of what.
        kind: HistoryKind,
    },
    /// `$NEX.REPLAY.<ns>.<node>` (new)
    Replay {
        /// Where the workload lives.
        namespace: String,
    },
}

/// What a node keeps. Each has subjects of its own, so that who may see events need not be let see what workloads write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HistoryKind {
    /// Lines that workloads have written.
    Logs,
    /// Events.
    Events,
}

impl HistoryKind {
    /// Its token in subjects, and in names of files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Events => "events",
        }
    }

    /// Reads a token.
    #[must_use]
    pub fn parse(token: &str) -> Option<Self> {
        [Self::Logs, Self::Events].into_iter().find(|kind| kind.as_str() == token)
    }
}

impl Control {
    /// The subjects a node subscribes.
    #[must_use]
    pub fn subscriptions(node: &NodeId) -> [String; 10] {
        [
            "$NEX.AUCTION".to_owned(),
            "$NEX.PING".to_owned(),
            format!("$NEX.PING.{node}"),
            "$NEX.WPING.>".to_owned(),
            format!("$NEX.INFO.*.{node}"),
            format!("$NEX.DEPLOY.*.{node}"),
            format!("$NEX.STOP.*.{node}"),
            format!("$NEX.LAMEDUCK.{node}"),
            format!("{HISTORY}*.{node}.*"),
            format!("{REPLAY}*.{node}"),
        ]
    }

    /// Whose workloads it is about, where that is one namespace's.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::WorkloadPing { namespace, .. }
            | Self::Info { namespace }
            | Self::Deploy { namespace }
            | Self::Stop { namespace }
            | Self::History { namespace, .. }
            | Self::Replay { namespace } => Some(namespace),
            Self::Auction | Self::Ping | Self::LameDuck => None,
        }
    }

    /// Reads the subject of a request that arrived on one of [`Self::subscriptions`].
    #[must_use]
    pub fn parse(subject: &str) -> Option<Self> {
        let mut tokens = subject.strip_prefix("$NEX.")?.split('.');
        let verb = tokens.next()?;
        let first = tokens.next().map(str::to_owned);
        let second = tokens.next().map(str::to_owned);
        match (verb, first) {
            ("AUCTION", None) => Some(Self::Auction),
            ("PING", _) => Some(Self::Ping),
            ("WPING", Some(namespace)) => Some(Self::WorkloadPing { namespace, workload: second }),
            ("INFO", Some(namespace)) => Some(Self::Info { namespace }),
            ("DEPLOY", Some(namespace)) => Some(Self::Deploy { namespace }),
            ("STOP", Some(namespace)) => Some(Self::Stop { namespace }),
            ("LAMEDUCK", Some(_)) => Some(Self::LameDuck),
            ("HISTORY", Some(namespace)) => HistoryKind::parse(tokens.next()?).map(|kind| Self::History { namespace, kind }),
            ("REPLAY", Some(namespace)) => Some(Self::Replay { namespace }),
            _ => None,
        }
    }
}

/// `$NEX.AUCTION`: who would take this?
pub const AUCTION: &str = "$NEX.AUCTION";
/// `$NEX.PING`: who is there?
pub const PING: &str = "$NEX.PING";

/// `$NEX.PING.<node>`: is this node there?
#[must_use]
pub fn ping(node: &NodeId) -> String {
    format!("$NEX.PING.{node}")
}

/// `$NEX.WPING.<ns>[.<workload>]`: who runs this?
#[must_use]
pub fn workload_ping(namespace: &Namespace, workload: Option<&str>) -> String {
    match workload {
        Some(workload) => format!("$NEX.WPING.{namespace}.{workload}"),
        None => format!("$NEX.WPING.{namespace}"),
    }
}

/// Stands for all namespaces in the subject of a WPING. It is no namespace, so that nobody is permitted it who is permitted those (new).
pub const ALL_NAMESPACES: &str = "@all";

/// `$NEX.WPING.@all[.<workload>]`: who runs this, whosever it is? Nodes of 0.2.7 have no such namespace, and stay silent.
#[must_use]
pub fn workload_ping_everywhere(workload: Option<&str>) -> String {
    match workload {
        Some(workload) => format!("$NEX.WPING.{ALL_NAMESPACES}.{workload}"),
        None => format!("$NEX.WPING.{ALL_NAMESPACES}"),
    }
}

/// `$NEX.INFO.<ns>.<node>`
#[must_use]
pub fn info(namespace: &Namespace, node: &NodeId) -> String {
    format!("$NEX.INFO.{namespace}.{node}")
}

/// `$NEX.DEPLOY.<ns>.<node>`
#[must_use]
pub fn deploy(namespace: &Namespace, node: &NodeId) -> String {
    format!("$NEX.DEPLOY.{namespace}.{node}")
}

/// `$NEX.STOP.<ns>.<node>`
#[must_use]
pub fn stop(namespace: &Namespace, node: &NodeId) -> String {
    format!("$NEX.STOP.{namespace}.{node}")
}

/// What the subjects of REPLAY begin with.
pub const REPLAY: &str = "$NEX.REPLAY.";

/// `$NEX.REPLAY.<ns>.<node>`: a message that a workload is called with once more, for its deployer only.
#[must_use]
pub fn replay(namespace: &Namespace, node: &NodeId) -> String {
    format!("{REPLAY}{namespace}.{node}")
}

/// `$NEX.LAMEDUCK.<node>`
#[must_use]
pub fn lame_duck(node: &NodeId) -> String {
    format!("$NEX.LAMEDUCK.{node}")
}

/// What the subjects of HISTORY begin with.
pub const HISTORY: &str = "$NEX.HISTORY.";

/// `$NEX.HISTORY.<ns>.<node>.<logs|events>`: what a node has kept of a namespace; `system` for events of nodes.
#[must_use]
pub fn history(namespace: &str, node: &NodeId, kind: HistoryKind) -> String {
    format!("{HISTORY}{namespace}.{node}.{}", kind.as_str())
}

/// `$NEX.events.<ns>.<type>`; wildcards are the caller's to give.
#[must_use]
pub fn event(namespace: &str, kind: &str) -> String {
    format!("$NEX.events.{namespace}.{kind}")
}

/// `$NEX.logs.<ns>.<node>.<workload name>.<workload id>`: the order clients filter on.
#[must_use]
pub fn log(namespace: &str, node: &str, name: &str, id: &str) -> String {
    format!("$NEX.logs.{namespace}.{node}.{name}.{id}")
}

/// `$NEX.logs.system.<node>.<stdout|stderr>`: the node's own log, raw lines.
#[must_use]
pub fn node_log(node: &NodeId, stream: &str) -> String {
    format!("$NEX.logs.system.{node}.{stream}")
}

/// Where a log line came from, read from its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSource {
    /// Namespace of the workload.
    pub namespace: String,
    /// Node it runs on.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
}

impl LogSource {
    /// Reads a log subject. Nodes of 0.2.7 send program output as `<id>.<name>`: where only the first of the two is an
    /// id, the order is put right.
    #[must_use]
    pub fn parse(subject: &str) -> Option<Self> {
        let mut tokens = subject.strip_prefix("$NEX.logs.")?.split('.');
        let (namespace, node) = (tokens.next()?.to_owned(), tokens.next()?.to_owned());
        let (mut name, mut id) = (tokens.next()?.to_owned(), tokens.next()?.to_owned());
        if name.parse::<WorkloadId>().is_ok() && id.parse::<WorkloadId>().is_err() {
            std::mem::swap(&mut name, &mut id);
        }
        tokens.next().is_none().then_some(Self { namespace, node, name, id })
    }
}

/// Queue group of a function's trigger subscriptions: copies of one function share the work.
#[must_use]
pub fn trigger_queue(namespace: &Namespace, name: &WorkloadName) -> String {
    format!("nex.{namespace}.{name}")
}

/// What the subjects begin with on which services get the messages of their triggers.
pub const SERVICE_SUBJECTS: &str = "nex.svc.";

/// `nex.svc.<ns>.<workload name>`: where a service is asked to deal with the messages of its triggers. It subscribes that itself.
#[must_use]
pub fn service(namespace: &Namespace, name: &WorkloadName) -> String {
    format!("{SERVICE_SUBJECTS}{namespace}.{name}")
}

/// `$NEX.dead.<ns>.<workload name>`: messages that a workload's triggers gave up.
#[must_use]
pub fn dead_letter(namespace: &Namespace, name: &str) -> String {
    format!("$NEX.dead.{namespace}.{name}")
}

/// `$NEX.redrive.<ns>.<workload name>`: calls a workload with a message that its triggers gave up.
#[must_use]
pub fn redrive(namespace: &Namespace, name: &WorkloadName) -> String {
    format!("$NEX.redrive.{namespace}.{name}")
}

/// `$NEX.schedule.<ns>.<consumer>`: what a server keeps of a schedule.
#[must_use]
pub fn schedule(namespace: &Namespace, consumer: &str) -> String {
    format!("$NEX.schedule.{namespace}.{consumer}")
}

/// `$NEX.fire.<ns>.<consumer>`: each time that comes.
#[must_use]
pub fn fire(namespace: &Namespace, consumer: &str) -> String {
    format!("$NEX.fire.{namespace}.{consumer}")
}

/// The stream of both.
#[must_use]
pub fn schedule_stream(namespace: &Namespace) -> String {
    format!("NEX_SCHEDULES_{namespace}")
}

/// The stream that keeps what was given up.
#[must_use]
pub fn dead_letter_stream(namespace: &Namespace) -> String {
    format!("{DEAD_LETTER_STREAMS}{namespace}")
}

/// What the names of dead-letter streams begin with.
pub const DEAD_LETTER_STREAMS: &str = "NEX_DEAD_";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_subjects_are_read_as_they_are_written() {
        let namespace: Namespace = "default".parse().unwrap();
        assert_eq!(
            Control::parse(&workload_ping(&namespace, None)),
            Some(Control::WorkloadPing { namespace: "default".into(), workload: None })
        );
        assert!(Control::parse(&workload_ping_everywhere(Some("a"))).is_some() && ALL_NAMESPACES.parse::<Namespace>().is_err());
        assert_eq!(Control::parse("$NEX.AUCTION"), Some(Control::Auction));
        assert_eq!(Control::parse("$NEX.WPING"), None);
        assert_eq!(Control::parse("$NEX.RUN.a.b"), None);
        let logs = Control::History { namespace: "default".into(), kind: HistoryKind::Logs };
        assert_eq!(Control::parse("$NEX.HISTORY.default.N1.logs"), Some(logs));
        assert_eq!(Control::parse("$NEX.HISTORY.default.N1.other"), None);
        assert_eq!(Control::parse("other"), None);
    }

    #[test]
    fn both_orders_of_a_log_subject_are_understood() {
        let id = WorkloadId::new(7);
        let right = LogSource::parse(&log("default", "N1", "echo", id.as_str())).unwrap();
        let old = LogSource::parse(&log("default", "N1", id.as_str(), "echo")).unwrap();
        assert_eq!(right, old);
        assert_eq!(right.name, "echo");
        assert_eq!(LogSource::parse("$NEX.logs.system.N1.stdout"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC*") {
            drop((Control::parse(&text), LogSource::parse(&text)));
        }
    }
}
