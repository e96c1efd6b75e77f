//! `isolation`: how far workloads are kept apart, what a request may ask for, and how large shared agents are.

use std::collections::BTreeMap;

use nex_protocol::deploy::{Isolation, WorkloadType};
use nex_protocol::id::Namespace;
use serde::Deserialize;

/// Instances of a shared agent by default, and the most there may be.
const INSTANCES: usize = 1_000;
const MAX_INSTANCES: usize = 10_000;
/// Memory of a shared agent by default, its least and its most, MiB.
const MEMORY: u32 = 1_024;
const MIN_MEMORY: u32 = 128;
const MAX_MEMORY: u32 = 1_048_576;

/// `isolation` as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are the configuration's own")]
pub struct RawIsolation {
    pub default: Option<String>,
    pub floor: Option<String>,
    /// Floors of namespaces.
    pub namespaces: BTreeMap<String, String>,
    pub max_instances: Option<usize>,
    pub memory_mib: Option<u32>,
}

/// How far workloads are kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsolationConfig {
    /// What a function has that asks for nothing; what its sandboxes give if absent.
    pub default: Option<Isolation>,
    /// What no request can go under.
    pub floor: Isolation,
    /// The same, of namespaces.
    pub namespaces: BTreeMap<String, Isolation>,
    /// What this node's sandboxes give.
    pub offered: Vec<Isolation>,
    /// Most instances of a shared agent.
    pub max_instances: usize,
    /// Memory of a shared agent, MiB.
    pub memory_mib: u32,
}

/// Why a workload is not kept apart as it has to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsolationRefusal {
    /// It is no isolation.
    #[error("{0}")]
    Unknown(#[from] nex_protocol::deploy::UnknownIsolation),
    /// Services are processes.
    #[error("a {0} workload shares no agent with others; ask for process or microvm, or for nothing")]
    Service(WorkloadType),
    /// A machine class is a sandbox of its own.
    #[error("a workload of a machine class shares no agent with others; leave the isolation or the class out")]
    MachineClass,
    /// It is less than the operator allows.
    #[error("this node keeps workloads of this namespace apart by {floor} at least, not by {asked}")]
    UnderTheFloor {
        /// The least.
        floor: Isolation,
        /// What was asked for.
        asked: Isolation,
    },
    /// The sandboxes do not give it.
    #[error("this node's sandboxes give {offered}, not {wanted}")]
    NotOffered {
        /// What there is.
        offered: String,
        /// What it would have to be.
        wanted: Isolation,
    },
}

impl IsolationConfig {
    /// What stands in the file.
    pub(super) fn resolve(raw: RawIsolation, problems: &mut Vec<String>) -> Self {
        let RawIsolation { default, floor, namespaces, max_instances, memory_mib } = raw;
        let mut read = |key: &str, text: &str| {
            text.parse::<Isolation>().map_err(|unknown| problems.push(format!("isolation.{key}: {unknown}"))).ok()
        };
        let default = default.and_then(|text| read("default", &text));
        let floor = floor.and_then(|text| read("floor", &text)).unwrap_or(Isolation::Isolate);
        let namespaces: BTreeMap<_, _> = namespaces
            .into_iter()
            .filter_map(|(name, text)| read(&format!("namespaces.{name}"), &text).map(|floor| (name, floor)))
            .collect();
        for name in namespaces.keys().filter(|name| name.parse::<Namespace>().is_err()) {
            problems.push(format!("isolation.namespaces: '{name}' is not a namespace"));
        }
        if default.is_some_and(|default| default < floor) {
            problems.push("isolation.default is under isolation.floor".to_owned());
        }
        let (max_instances, memory_mib) = (max_instances.unwrap_or(INSTANCES), memory_mib.unwrap_or(MEMORY));
        if !(1..=MAX_INSTANCES).contains(&max_instances) {
            problems.push(format!("isolation.max_instances has to be 1 to {MAX_INSTANCES}"));
        }
        if !(MIN_MEMORY..=MAX_MEMORY).contains(&memory_mib) {
            problems.push(format!("isolation.memory_mib has to be {MIN_MEMORY} to {MAX_MEMORY}"));
        }
        Self { default, floor, namespaces, offered: vec![Isolation::Isolate, Isolation::Process], max_instances, memory_mib }
    }

    /// What no workload of a namespace can go under.
    #[must_use]
    pub fn floor_of(&self, namespace: &str) -> Isolation {
        self.namespaces.get(namespace).copied().unwrap_or(self.floor).max(self.floor)
    }

    /// How far a workload is kept apart that asks for this.
    ///
    /// # Errors
    /// [`IsolationRefusal`]
    pub fn of(
        &self,
        asked: Option<&str>,
        namespace: &str,
        kind: WorkloadType,
        has_class: bool,
    ) -> Result<Isolation, IsolationRefusal> {
        let may_share = kind.is_function() && !has_class;
        let floor = self.floor_of(namespace);
        let wanted = match asked.map(str::parse::<Isolation>).transpose()? {
            Some(Isolation::Isolate) if !kind.is_function() => return Err(IsolationRefusal::Service(kind)),
            Some(Isolation::Isolate) if has_class => return Err(IsolationRefusal::MachineClass),
            Some(asked) if asked < floor => return Err(IsolationRefusal::UnderTheFloor { floor, asked }),
            Some(asked) => asked,
            None => {
                let least = if may_share { Isolation::Isolate } else { self.own() };
                self.default.unwrap_or(self.own()).max(least).max(floor)
            }
        };
        if self.offered.contains(&wanted) {
            return Ok(wanted);
        }
        Err(IsolationRefusal::NotOffered { offered: Isolation::names(&self.offered), wanted })
    }

    /// What a sandbox of its own is here.
    fn own(&self) -> Isolation {
        self.offered.last().copied().unwrap_or(Isolation::Process)
    }

    /// What may be asked for here.
    #[must_use]
    pub fn may_be_asked(&self) -> Vec<Isolation> {
        self.offered.iter().copied().filter(|offered| *offered >= self.floor).collect()
    }

    /// Why a node with such sandboxes could take nothing, or not what it is to take by default.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        let offered = Isolation::names(&self.offered);
        match self.default {
            _ if self.may_be_asked().is_empty() => Some(format!("isolation.floor is {}", self.floor)),
            Some(default) if !self.offered.contains(&default) => Some(format!("isolation.default is {default}")),
            _ => None,
        }
        .map(|what| format!("{what}, but this node's sandboxes give {offered}"))
    }
}

impl Default for IsolationConfig {
    fn default() -> Self {
        Self::resolve(RawIsolation::default(), &mut Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEVELS: [Isolation; 3] = [Isolation::Isolate, Isolation::Process, Isolation::MicroVm];

    fn config(text: &str) -> Result<IsolationConfig, Vec<String>> {
        let mut problems = Vec::new();
        let config = IsolationConfig::resolve(serde_json::from_str(text).unwrap(), &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    #[test]
    fn what_is_asked_is_given_or_refused_and_else_the_default_or_the_floor_counts() {
        let plain = config("{}").unwrap();
        let of = |config: &IsolationConfig, asked, namespace| config.of(asked, namespace, WorkloadType::V8, false);
        assert_eq!(of(&plain, None, "a"), Ok(Isolation::Process), "as before there was a choice");
        assert_eq!(of(&plain, Some("isolate"), "a"), Ok(Isolation::Isolate));
        assert!(matches!(of(&plain, Some("microvm"), "a"), Err(IsolationRefusal::NotOffered { .. })));
        assert!(matches!(of(&plain, Some("none"), "a"), Err(IsolationRefusal::Unknown(_))));
        let strict = config(r#"{"default": "isolate", "namespaces": {"bank": "process", "vault": "microvm"}}"#).unwrap();
        assert_eq!(of(&strict, None, "a"), Ok(Isolation::Isolate));
        assert_eq!(of(&strict, None, "bank"), Ok(Isolation::Process));
        assert!(matches!(of(&strict, Some("isolate"), "bank"), Err(IsolationRefusal::UnderTheFloor { .. })));
        assert!(matches!(of(&strict, None, "vault"), Err(IsolationRefusal::NotOffered { .. })));
        assert_eq!(strict.of(None, "a", WorkloadType::Native, false), Ok(Isolation::Process), "services never share");
        assert!(strict.of(Some("isolate"), "a", WorkloadType::Native, false).is_err());
        assert_eq!(strict.of(None, "a", WorkloadType::Wasm, true), Ok(Isolation::Process), "a class is a sandbox of its own");
        assert!(strict.of(Some("isolate"), "a", WorkloadType::Wasm, true).is_err());
    }

    #[test]
    fn machines_share_nothing_and_a_default_that_they_do_not_give_is_a_contradiction() {
        let machines = |text| IsolationConfig { offered: vec![Isolation::MicroVm], ..config(text).unwrap() };
        assert_eq!(machines("{}").of(None, "a", WorkloadType::V8, false), Ok(Isolation::MicroVm));
        assert!(machines("{}").of(Some("process"), "a", WorkloadType::Native, false).is_err());
        assert_eq!(machines("{}").contradiction(), None);
        assert!(machines(r#"{"default": "isolate"}"#).contradiction().is_some());
        assert!(config(r#"{"floor": "microvm"}"#).unwrap().contradiction().is_some());
    }

    #[test]
    fn what_cannot_be_is_a_problem_each() {
        let text = r#"{"default": "isolate", "floor": "process", "namespaces": {"a b": "process", "c": "x"}, "max_instances": 0,
            "memory_mib": 1}"#;
        assert_eq!(config(text).unwrap_err().len(), 5);
        assert!(serde_json::from_str::<RawIsolation>(r#"{"flor": "x"}"#).is_err());
    }

    proptest! {
        #[test]
        fn nothing_goes_under_a_floor_and_services_never_share(
            default in proptest::option::of(0..3_usize), floor in 0..3_usize, own in 0..3_usize, asked in proptest::option::of(0..3_usize),
            is_service: bool, has_class: bool, in_machines: bool,
        ) {
            let offered = if in_machines { vec![Isolation::MicroVm] } else { vec![Isolation::Isolate, Isolation::Process] };
            let config = IsolationConfig {
                default: default.map(|at| LEVELS[at]),
                floor: LEVELS[floor],
                namespaces: BTreeMap::from([("mine".to_owned(), LEVELS[own])]),
                offered,
                ..IsolationConfig::default()
            };
            let kind = if is_service { WorkloadType::Native } else { WorkloadType::V8 };
            let asked = asked.map(|at| LEVELS[at]);
            if let Ok(given) = config.of(asked.map(Isolation::as_str), "mine", kind, has_class) {
                prop_assert!(given >= LEVELS[floor] && given >= LEVELS[own] && config.offered.contains(&given));
                prop_assert!(asked.is_none_or(|asked| asked == given), "exactly what was asked for");
                prop_assert!(given > Isolation::Isolate || !(is_service || has_class));
            }
        }
    }
}
