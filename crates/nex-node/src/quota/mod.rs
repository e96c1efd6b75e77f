//! Quotas: how much the node, a namespace and an issuer may have. Pure: what is used is told by who knows it.

mod log_rate;
mod rate;

use std::collections::BTreeMap;
use std::fmt;

use nex_protocol::control::QuotaSummary;
use nex_protocol::id::Namespace;

pub use log_rate::{LogRates, LogShare};
pub use rate::{DeployRates, TooFast};

const MIB: u64 = 1024 * 1024;

/// What somebody may have; absent means unbounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Workloads at once.
    pub workloads: Option<u64>,
    /// Memory that all of them together may take, bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time that all of them together may take, percent of one processor.
    pub cpu_percent: Option<u64>,
    /// Bytes of their artifacts.
    pub artifact_bytes: Option<u64>,
    /// Bytes of log lines in a second.
    pub log_bytes_per_second: Option<u64>,
    /// Deploys in a minute.
    pub deploys_per_minute: Option<u64>,
}

/// The quotas of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Of all workloads.
    pub node: Quota,
    /// Of each namespace that is not named.
    pub namespace: Quota,
    /// Of namespaces, by name.
    pub namespaces: BTreeMap<String, Quota>,
    /// Of each issuer that is not named.
    pub issuer: Quota,
    /// Of issuers, by public key.
    pub issuers: BTreeMap<String, Quota>,
}

/// Who has a quota.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The node.
    Node,
    /// A namespace.
    Namespace(String),
    /// An issuer.
    Issuer(String),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("this node"),
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
            Self::Issuer(issuer) => write!(f, "issuer {issuer}"),
        }
    }
}

/// What a workload may take by its own limits, and counts for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Processor time, percent of one processor; nothing where it is not bounded.
    pub cpu_percent: u64,
    /// Bytes of its artifact; nothing as long as it is not known.
    pub artifact_bytes: u64,
}

/// Whom a workload counts for, and what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Charge {
    /// Its namespace, if that is known.
    pub namespace: Option<Namespace>,
    /// Who started it, if that is known.
    pub issuer: Option<String>,
    /// What it may take.
    pub demand: Demand,
}

impl Charge {
    /// All that have a quota for it.
    #[must_use]
    pub fn payers(&self) -> Vec<Who> {
        let namespace = self.namespace.iter().map(|namespace| Who::Namespace(namespace.to_string()));
        let issuer = self.issuer.iter().map(|issuer| Who::Issuer(issuer.clone()));
        std::iter::once(Who::Node).chain(namespace).chain(issuer).collect()
    }

    fn is_paid_by(&self, who: &Who) -> bool {
        match who {
            Who::Node => true,
            Who::Namespace(namespace) => self.namespace.as_ref().is_some_and(|own| own.as_str() == namespace),
            Who::Issuer(issuer) => self.issuer.as_ref() == Some(issuer),
        }
    }
}

/// A quota that a workload would exceed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quota of {who}: {what} {used} of {most}{}; it asks for {asked}", .unit)]
pub struct Exceeded {
    /// Whose.
    pub who: Who,
    /// Of what.
    pub what: &'static str,
    /// What is used.
    pub used: u64,
    /// What may be used.
    pub most: u64,
    /// What is asked for.
    pub asked: u64,
    unit: &'static str,
}

/// What somebody uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Used {
    workloads: u64,
    demand: Demand,
}

impl Used {
    fn of<'a>(who: &Who, charges: impl Iterator<Item = &'a Charge>) -> Self {
        charges.filter(|charge| charge.is_paid_by(who)).fold(Self::default(), |used, charge| {
            let (sum, one) = (used.demand, charge.demand);
            let demand = Demand {
                memory_bytes: sum.memory_bytes.saturating_add(one.memory_bytes),
                cpu_percent: sum.cpu_percent.saturating_add(one.cpu_percent),
                artifact_bytes: sum.artifact_bytes.saturating_add(one.artifact_bytes),
            };
            Self { workloads: used.workloads + 1, demand }
        })
    }
}

/// A bound of a quota: its name, the unit of its numbers, how large that is, the most, what is used, what is asked for.
type Bound = (&'static str, &'static str, u64, Option<u64>, u64, u64);

fn bounds(quota: &Quota, used: &Used, workloads: u64, asked: &Demand) -> [Bound; 4] {
    let has = &used.demand;
    [
        ("workloads", "", 1, quota.workloads, used.workloads, workloads),
        ("memory", " MiB", MIB, quota.memory_bytes, has.memory_bytes, asked.memory_bytes),
        ("cpu", " %", 1, quota.cpu_percent, has.cpu_percent, asked.cpu_percent),
        ("artifacts", " MiB", MIB, quota.artifact_bytes, has.artifact_bytes, asked.artifact_bytes),
    ]
}

impl Quotas {
    /// The quota of somebody: of those that are named, what is not said of them is that of the others.
    #[must_use]
    pub fn of(&self, who: &Who) -> Quota {
        match who {
            Who::Node => self.node,
            Who::Namespace(name) => self.namespaces.get(name).map_or(self.namespace, |named| named.or(self.namespace)),
            Who::Issuer(key) => self.issuers.get(key).map_or(self.issuer, |named| named.or(self.issuer)),
        }
    }

    /// Whether a workload may be taken besides others.
    ///
    /// # Errors
    /// The first quota that it would exceed.
    pub fn admit<'a>(&self, asked: &Charge, others: &(impl Iterator<Item = &'a Charge> + Clone)) -> Result<(), Exceeded> {
        for who in asked.payers() {
            let (quota, used) = (self.of(&who), Used::of(&who, others.clone()));
            for (what, unit, size, most, used, asked) in bounds(&quota, &used, 1, &asked.demand) {
                if most.is_some_and(|most| asked > 0 && used.saturating_add(asked) > most) {
                    let most = most.unwrap_or_default() / size;
                    let (used, asked) = (used.div_ceil(size), asked.div_ceil(size));
                    return Err(Exceeded { who, what, used, most, asked, unit });
                }
            }
        }
        Ok(())
    }

    /// What the node, a namespace and the issuers of its workloads have of their quotas.
    #[must_use]
    pub fn summary<'a>(&self, namespace: &str, charges: &(impl Iterator<Item = &'a Charge> + Clone)) -> Vec<QuotaSummary> {
        let mut who = vec![Who::Node, Who::Namespace(namespace.to_owned())];
        let own = charges.clone().filter(|charge| charge.namespace.as_ref().is_some_and(|own| own.as_str() == namespace));
        who.extend(own.filter_map(|charge| charge.issuer.clone()).map(Who::Issuer));
        who.sort();
        who.dedup();
        let mut told = Vec::new();
        for who in who {
            let (quota, used) = (self.of(&who), Used::of(&who, charges.clone()));
            let mut tell = |what: &str, unit: &str, used: Option<u64>, most: u64| {
                told.push(QuotaSummary { of: who.to_string(), what: what.to_owned(), unit: unit.trim().to_owned(), used, most });
            };
            for (what, unit, size, most, used, _) in bounds(&quota, &used, 0, &Demand::default()) {
                if let Some(most) = most {
                    tell(what, unit, Some(used.div_ceil(size)), most / size);
                }
            }
            quota.log_bytes_per_second.into_iter().for_each(|most| tell("logs", "bytes/s", None, most));
            quota.deploys_per_minute.into_iter().for_each(|most| tell("deploys", "a minute", None, most));
        }
        told
    }
}

impl Quota {
    fn or(self, other: Self) -> Self {
        Self {
            workloads: self.workloads.or(other.workloads),
            memory_bytes: self.memory_bytes.or(other.memory_bytes),
            cpu_percent: self.cpu_percent.or(other.cpu_percent),
            artifact_bytes: self.artifact_bytes.or(other.artifact_bytes),
            log_bytes_per_second: self.log_bytes_per_second.or(other.log_bytes_per_second),
            deploys_per_minute: self.deploys_per_minute.or(other.deploys_per_minute),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn charge(namespace: &str, issuer: &str, mib: u64) -> Charge {
        let demand = Demand { memory_bytes: mib * MIB, cpu_percent: 50, artifact_bytes: 1 };
        Charge { namespace: namespace.parse().ok(), issuer: Some(issuer.to_owned()), demand }
    }

    fn quotas() -> Quotas {
        Quotas {
            node: Quota { workloads: Some(5), ..Quota::default() },
            namespace: Quota { workloads: Some(2), memory_bytes: Some(100 * MIB), ..Quota::default() },
            namespaces: [("large".to_owned(), Quota { workloads: Some(4), ..Quota::default() })].into(),
            issuer: Quota { cpu_percent: Some(150), ..Quota::default() },
            issuers: BTreeMap::new(),
        }
    }

    #[test]
    fn the_refusal_names_whose_quota_it_is_and_the_numbers() {
        let (quotas, has) = (quotas(), [charge("a", "I", 60)]);
        let refused = |asked: &Charge, has: &[Charge]| quotas.admit(asked, &has.iter()).unwrap_err().to_string();
        assert!(quotas.admit(&charge("a", "I", 40), &has.iter()).is_ok());
        assert_eq!(refused(&charge("a", "I", 41), &has), "quota of namespace a: memory 60 of 100 MiB; it asks for 41");
        let two = [charge("a", "I", 1), charge("a", "J", 1)];
        assert_eq!(refused(&charge("a", "I", 1), &two), "quota of namespace a: workloads 2 of 2; it asks for 1");
        let three = [charge("b", "I", 1), charge("c", "I", 1), charge("d", "I", 1)];
        assert_eq!(refused(&charge("e", "I", 1), &three), "quota of issuer I: cpu 150 of 150 %; it asks for 50");
        let four: Vec<Charge> = (0..4).map(|number| charge("large", &format!("I{number}"), 1)).collect();
        assert!(refused(&charge("large", "J", 1), &four).starts_with("quota of namespace large: workloads 4 of 4"));
        assert!(refused(&charge("large", "J", 101), &four[..1]).contains("memory"), "what is not said is that of the others");
    }

    #[test]
    fn a_namespace_is_told_its_own_and_the_nodes_quotas() {
        let has = [charge("a", "I", 60), charge("b", "J", 1)];
        let told = quotas().summary("a", &has.iter());
        let of = |of: &str, what: &str| told.iter().find(|it| it.of == of && it.what == what).map(|it| (it.used, it.most));
        assert_eq!(of("this node", "workloads"), Some((Some(2), 5)));
        assert_eq!(of("namespace a", "memory"), Some((Some(60), 100)));
        assert_eq!(of("issuer I", "cpu"), Some((Some(50), 150)));
        assert!(told.iter().all(|it| !it.of.contains('J') && !it.of.ends_with(" b")), "{told:?}");
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_nobody_has_more_than_his_quota(
            asked in prop::collection::vec((0_usize..3, 0_usize..3, 0_u64..60, any::<bool>()), 0..60),
        ) {
            let quotas = quotas();
            let mut has: Vec<Charge> = Vec::new();
            for (namespace, issuer, mib, leaves) in asked {
                if leaves && !has.is_empty() {
                    has.remove(0);
                }
                let one = charge(["a", "b", "large"][namespace], ["I", "J", "K"][issuer], mib);
                if quotas.admit(&one, &has.iter()).is_ok() {
                    has.push(one);
                }
                for who in has.iter().flat_map(Charge::payers) {
                    let (quota, used) = (quotas.of(&who), Used::of(&who, has.iter()));
                    for (what, _, _, most, used, _) in bounds(&quota, &used, 0, &Demand::default()) {
                        prop_assert!(most.is_none_or(|most| used <= most), "{who}: {what} {used} of {most:?}");
                    }
                }
            }
        }
    }
}
