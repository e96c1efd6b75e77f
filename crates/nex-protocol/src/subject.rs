//! Every subject, built and parsed; no other file formats one.

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
}

impl Control {
    /// The subjects a node subscribes.
    #[must_use]
    pub fn subscriptions(node: &NodeId) -> [String; 8] {
        [
            "$NEX.AUCTION".to_owned(),
            "$NEX.PING".to_owned(),
            format!("$NEX.PING.{node}"),
            "$NEX.WPING.>".to_owned(),
            format!("$NEX.INFO.*.{node}"),
            format!("$NEX.DEPLOY.*.{node}"),
            format!("$NEX.STOP.*.{node}"),
            format!("$NEX.LAMEDUCK.{node}"),
        ]
    }

    /// Whose workloads it is about, where that is one namespace's.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::WorkloadPing { namespace, .. }
            | Self::Info { namespace }
            | Self::Deploy { namespace }
            | Self::Stop { namespace } => Some(namespace),
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
            _ => None,
        }
    }
}

/// What other NATS tools ask of a micro service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// `$SRV.PING`: who is there?
    Ping,
    /// `$SRV.INFO`: what does it serve?
    Info,
    /// `$SRV.STATS`: how much?
    Stats,
}

impl Discovery {
    /// The subjects that an instance of a service subscribes.
    #[must_use]
    pub fn subscriptions(service: &str, instance: &str) -> Vec<String> {
        let of = |verb| [format!("$SRV.{verb}"), format!("$SRV.{verb}.{service}"), format!("$SRV.{verb}.{service}.{instance}")];
        ["PING", "INFO", "STATS"].into_iter().flat_map(of).collect()
    }

    /// Reads the subject of a question that arrived on one of [`Self::subscriptions`].
    #[must_use]
    pub fn parse(subject: &str) -> Option<Self> {
        match subject.strip_prefix("$SRV.")?.split('.').next()? {
            "PING" => Some(Self::Ping),
            "INFO" => Some(Self::Info),
            "STATS" => Some(Self::Stats),
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

/// `$NEX.LAMEDUCK.<node>`
#[must_use]
pub fn lame_duck(node: &NodeId) -> String {
    format!("$NEX.LAMEDUCK.{node}")
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

/// Whether two subject patterns can match a common subject; wildcards on both sides.
#[must_use]
pub fn overlap(left: &str, right: &str) -> bool {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == "*" || b == "*" || a == b => {}
            _ => return false,
        }
    }
}

/// Whether a pattern can match a subject that belongs to a server, a node or somebody's inbox: those whose first token begins with `$`
/// or `_`. A pattern that begins with a wildcard can.
#[must_use]
pub fn reaches_reserved(pattern: &str) -> bool {
    pattern.starts_with(['$', '_', '*', '>'])
}

/// Whether every subject that a pattern matches is matched by another, too.
#[must_use]
pub fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('.'), narrow.split('.'));
    loop {
        match (wide.next(), narrow.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Whether a text may be subscribed: tokens without white space, wildcards only as whole tokens, `>` only last.
#[must_use]
pub fn is_valid_pattern(pattern: &str) -> bool {
    if pattern.is_empty() || pattern.len() > 512 {
        return false;
    }
    let mut tokens = pattern.split('.').peekable();
    while let Some(token) = tokens.next() {
        let wild = token == "*" || (token == ">" && tokens.peek().is_none());
        let plain =
            !token.is_empty() && !token.contains(['*', '>']) && !token.contains(|c: char| c.is_whitespace() || c.is_control());
        if !wild && !plain {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, subject: &str) -> bool {
        let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
        loop {
            match (pattern.next(), subject.next()) {
                (None, None) | (Some(">"), Some(_)) => return true,
                (Some(p), Some(s)) if p == "*" || p == s => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn control_subjects_are_read_as_they_are_written() {
        let namespace: Namespace = "default".parse().unwrap();
        assert_eq!(
            Control::parse(&workload_ping(&namespace, None)),
            Some(Control::WorkloadPing { namespace: "default".into(), workload: None })
        );
        assert_eq!(Control::parse("$NEX.AUCTION"), Some(Control::Auction));
        assert_eq!(Control::parse("$NEX.WPING"), None);
        assert_eq!(Control::parse("$NEX.RUN.a.b"), None);
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

    #[test]
    fn overlap_knows_wildcards_on_both_sides() {
        for (a, b, expected) in [
            ("$NEX.>", "$NEX.AUCTION", true),
            ("*.AUCTION", "$NEX.>", true),
            (">", "$SYS.x", true),
            ("a.b", "a.b.c", false),
            ("a.*", "a.b.c", false),
            ("a.>", "a", false),
        ] {
            assert_eq!(overlap(a, b), expected, "{a} {b}");
            assert_eq!(overlap(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn reserved_subjects_are_reached_by_their_names_and_by_leading_wildcards() {
        for pattern in ["$NEX.PING", "_INBOX.>", "_R_.x", ">", "*.x", "*", "$MQTT.>"] {
            assert!(reaches_reserved(pattern), "{pattern}");
        }
        for pattern in ["fn.greet", "a.>", "a.*.$b"] {
            assert!(!reaches_reserved(pattern), "{pattern}");
        }
        assert!(
            covers("a.>", "a.b.*")
                && covers("a.*", "a.b")
                && !covers("a.*", "a.>")
                && !covers("a.b", "a.*")
                && !covers("a.>", "a")
        );
        assert_eq!(Discovery::parse("$SRV.INFO.nex"), Some(Discovery::Info));
    }

    proptest! {
        #[test]
        fn a_subject_matched_by_two_patterns_makes_them_overlap(
            subject in "[ab](\\.[ab]){0,3}", left in "[ab*](\\.[ab*]){0,3}(\\.>)?", right in "[ab*](\\.[ab*]){0,3}(\\.>)?",
        ) {
            prop_assert!(is_valid_pattern(&left));
            if matches(&left, &subject) && matches(&right, &subject) {
                prop_assert!(overlap(&left, &right));
            }
        }

        #[test]
        fn what_a_covered_pattern_matches_its_cover_matches(
            subject in "[ab](\\.[ab]){0,3}", wide in "[ab*](\\.[ab*]){0,3}(\\.>)?", narrow in "[ab*](\\.[ab*]){0,3}(\\.>)?",
        ) {
            if covers(&wide, &narrow) && matches(&narrow, &subject) {
                prop_assert!(matches(&wide, &subject));
            }
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC*") {
            drop((Control::parse(&text), LogSource::parse(&text), is_valid_pattern(&text), overlap(&text, "a.>")));
        }
    }
}
