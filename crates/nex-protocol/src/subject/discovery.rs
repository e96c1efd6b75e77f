//! What other NATS tools ask of micro services, and under which names functions are some.

use crate::id::{Namespace, WorkloadName};

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
    /// The subjects that a process subscribes which answers for many services, that come and go.
    pub const SUBSCRIPTIONS: [&str; 9] = [
        "$SRV.PING",
        "$SRV.PING.*",
        "$SRV.PING.*.*",
        "$SRV.INFO",
        "$SRV.INFO.*",
        "$SRV.INFO.*.*",
        "$SRV.STATS",
        "$SRV.STATS.*",
        "$SRV.STATS.*.*",
    ];

    /// Its name in the type of its answer.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Info => "info",
            Self::Stats => "stats",
        }
    }
}

/// A question to micro services: to all, to those of a name, or to one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceQuestion {
    /// What is asked.
    pub what: Discovery,
    service: Option<String>,
    instance: Option<String>,
}

impl ServiceQuestion {
    /// Reads the subject of a question that arrived on one of [`Discovery::SUBSCRIPTIONS`].
    #[must_use]
    pub fn parse(subject: &str) -> Option<Self> {
        let mut tokens = subject.strip_prefix("$SRV.")?.split('.');
        let what = match tokens.next()? {
            "PING" => Discovery::Ping,
            "INFO" => Discovery::Info,
            "STATS" => Discovery::Stats,
            _ => return None,
        };
        let mut next = || tokens.next().map(str::to_owned);
        Some(Self { what, service: next(), instance: next() })
    }

    /// Whether it is for an instance of a service.
    #[must_use]
    pub fn is_for(&self, service: &str, instance: &str) -> bool {
        self.service.as_deref().is_none_or(|asked| asked == service)
            && self.instance.as_deref().is_none_or(|asked| asked == instance)
    }
}

/// The name under which a function is a micro service. Namespaces and names have no dot, so that it is one token.
#[must_use]
pub fn function_service(namespace: &Namespace, name: &WorkloadName) -> String {
    format!("{namespace}-{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_for_all_for_those_of_a_name_or_for_one() {
        let asked = ServiceQuestion::parse("$SRV.INFO.nex").unwrap();
        assert!(asked.what == Discovery::Info && asked.is_for("nex", "any") && !asked.is_for("other", "any"));
        assert!(!ServiceQuestion::parse("$SRV.PING.nex.one").unwrap().is_for("nex", "two"));
        assert_eq!(ServiceQuestion::parse("$SRV.NOTHING"), None);
        assert!(ServiceQuestion::parse("$SRV.PING").unwrap().is_for("nex", "two"));
    }
}
