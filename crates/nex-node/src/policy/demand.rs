//! What a workload counts for in quotas: the most that it can take, by the limits that it runs under.

use nex_protocol::deploy::{DeployRequest, WorkloadType};
use nex_protocol::id::Namespace;

use super::Admitted;
use crate::config::NodeConfig;
use crate::quota::{Charge, Demand};

const MIB: u64 = 1024 * 1024;

/// What a workload counts for that asks for so much memory and for this class of machine.
#[must_use]
pub fn demand(config: &NodeConfig, kind: Option<WorkloadType>, memory_mib: Option<u64>, class: Option<&str>) -> Demand {
    let limits = &config.workload_limits;
    // Functions share their sandbox with nobody, and many of their instances are in it.
    let is_function = kind.is_some_and(WorkloadType::is_function);
    let own = memory_mib.filter(|_| !is_function).map(|mib| mib.saturating_mul(MIB));
    let machine = class.and_then(|class| config.microvm.classes.get(class)).map(|class| class.size);
    Demand {
        memory_bytes: machine.map(|size| u64::from(size.memory_mib) * MIB).or(own).unwrap_or(limits.max_memory_bytes),
        cpu_percent: machine.map(|size| u64::from(size.vcpus) * 100).or(limits.cpu_percent.map(u64::from)).unwrap_or(0),
        artifact_bytes: 0,
    }
}

/// Whom an admitted deploy counts for, and what.
#[must_use]
pub fn charge(config: &NodeConfig, namespace: &Namespace, request: &DeployRequest, admitted: &Admitted) -> Charge {
    let memory_mib = request.limits.and_then(|limits| limits.memory_mib);
    let demand = demand(config, Some(admitted.kind), memory_mib, request.machine_class.as_deref());
    Charge { namespace: Some(namespace.clone()), issuer: Some(admitted.claims.iss.clone()), demand }
}
