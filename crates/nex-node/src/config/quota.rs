//! `quotas`: what the node, namespaces and issuers may have; and what in it cannot be meant.

use std::collections::BTreeMap;

use nex_protocol::id::{Namespace, is_public_key};
use serde::Deserialize;

use super::raw::RawConfig;
use super::{MIB, WorkloadLimits};
use crate::quota::{Quota, Quotas};

/// Most namespaces, and most issuers, that are named.
const NAMED: usize = 1_024;

/// `quotas`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are the configuration's own")]
pub struct RawQuotas {
    pub node: RawQuota,
    pub namespace: RawQuota,
    pub namespaces: BTreeMap<String, RawQuota>,
    pub issuer: RawQuota,
    pub issuers: BTreeMap<String, RawQuota>,
}

/// One of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are the configuration's own")]
pub struct RawQuota {
    pub workloads: Option<u64>,
    pub memory_mib: Option<u64>,
    pub cpu_percent: Option<u64>,
    pub artifact_mib: Option<u64>,
    pub log_bytes_per_second: Option<u64>,
    pub deploys_per_minute: Option<u64>,
}

impl RawQuota {
    fn members(&self) -> [(&'static str, Option<u64>); 6] {
        [
            ("workloads", self.workloads),
            ("memory_mib", self.memory_mib),
            ("cpu_percent", self.cpu_percent),
            ("artifact_mib", self.artifact_mib),
            ("log_bytes_per_second", self.log_bytes_per_second),
            ("deploys_per_minute", self.deploys_per_minute),
        ]
    }

    fn resolve(&self) -> Quota {
        Quota {
            workloads: self.workloads,
            memory_bytes: self.memory_mib.map(|mib| mib.saturating_mul(MIB)),
            cpu_percent: self.cpu_percent,
            artifact_bytes: self.artifact_mib.map(|mib| mib.saturating_mul(MIB)),
            log_bytes_per_second: self.log_bytes_per_second,
            deploys_per_minute: self.deploys_per_minute,
        }
    }
}

/// Resolves it, and says what cannot be meant.
pub(super) fn resolve(raw: &RawConfig, limits: &WorkloadLimits, problems: &mut Vec<String>) -> Quotas {
    let given = raw.quotas.clone().unwrap_or_default();
    let namespaces = given.namespaces.iter().map(|(name, quota)| (format!("namespaces.{name}"), quota));
    let issuers = given.issuers.iter().map(|(key, quota)| (format!("issuers.{key}"), quota));
    let usual = [("node", &given.node), ("namespace", &given.namespace), ("issuer", &given.issuer)];
    let usual = usual.map(|(name, quota)| (name.to_owned(), quota));
    for (name, quota) in usual.into_iter().chain(namespaces).chain(issuers) {
        check(&name, quota, &given.node, limits, problems);
    }
    for namespace in given.namespaces.keys().filter(|name| name.parse::<Namespace>().is_err()) {
        problems.push(format!("quotas.namespaces: '{namespace}' is not a namespace"));
    }
    for issuer in given.issuers.keys().filter(|key| !is_public_key(key)) {
        problems.push(format!("quotas.issuers: '{issuer}' is not a public nkey (56 characters, A…, U…, O…)"));
    }
    if given.namespaces.len() > NAMED || given.issuers.len() > NAMED {
        problems.push(format!("quotas: more than {NAMED} namespaces or issuers are named"));
    }
    let all = |named: &BTreeMap<String, RawQuota>| named.iter().map(|(name, quota)| (name.clone(), quota.resolve())).collect();
    Quotas {
        node: given.node.resolve(),
        namespace: given.namespace.resolve(),
        namespaces: all(&given.namespaces),
        issuer: given.issuer.resolve(),
        issuers: all(&given.issuers),
    }
}

fn check(name: &str, quota: &RawQuota, node: &RawQuota, limits: &WorkloadLimits, problems: &mut Vec<String>) {
    for ((member, most), (_, of_node)) in quota.members().into_iter().zip(node.members()) {
        let Some(most) = most else { continue };
        if most == 0 {
            problems.push(format!("quotas.{name}.{member} is 0, with which nothing runs"));
        }
        if of_node.is_some_and(|of_node| most > of_node) {
            problems.push(format!("quotas.{name}.{member} is more than the node's"));
        }
    }
    let one = limits.max_memory_bytes / MIB;
    if quota.memory_mib.is_some_and(|mib| mib > 0 && mib < one) {
        let why = "what a workload counts for that asks for no less";
        problems.push(format!("quotas.{name}.memory_mib is less than workload_limits.max_memory_mib ({one}), {why}"));
    }
    if quota.cpu_percent.is_some() {
        match limits.cpu_percent {
            None => problems.push(format!(
                "quotas.{name}.cpu_percent needs workload_limits.cpu_percent: a workload without a bound counts for nothing"
            )),
            Some(one) if quota.cpu_percent.is_some_and(|most| most > 0 && most < u64::from(one)) => {
                problems.push(format!("quotas.{name}.cpu_percent is less than workload_limits.cpu_percent ({one})"));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::RawConfig;
    use crate::config::{Invalid, NodeConfig};

    fn problems(quotas: &str) -> Vec<String> {
        let raw = RawConfig::parse(&format!(r#"{{"no_sandbox":true,"quotas":{quotas}}}"#)).unwrap();
        NodeConfig::resolve(raw).err().map(|Invalid(problems)| problems).unwrap_or_default()
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        assert_eq!(
            problems(r#"{"node":{"workloads":3},"namespace":{"workloads":2},"namespaces":{"a":{"workloads":3}}}"#),
            [""; 0]
        );
        for (quotas, problem) in [
            (r#"{"node":{"workloads":0}}"#, "quotas.node.workloads is 0"),
            (
                r#"{"node":{"workloads":3},"namespaces":{"a":{"workloads":4}}}"#,
                "quotas.namespaces.a.workloads is more than the node's",
            ),
            (
                r#"{"namespace":{"memory_mib":255}}"#,
                "quotas.namespace.memory_mib is less than workload_limits.max_memory_mib (256)",
            ),
            (r#"{"issuer":{"cpu_percent":50}}"#, "quotas.issuer.cpu_percent needs workload_limits.cpu_percent"),
            (r#"{"namespaces":{"a b":{}}}"#, "'a b' is not a namespace"),
            (r#"{"issuers":{"me":{}}}"#, "'me' is not a public nkey"),
        ] {
            let found = problems(quotas);
            assert!(found.len() == 1 && found[0].contains(problem), "{found:?}");
        }
        let error = RawConfig::parse(r#"{"quotas":{"node":{"workload":1}}}"#).unwrap_err().to_string();
        assert!(error.contains("Did you mean 'workloads'?"), "{error}");
    }
}
