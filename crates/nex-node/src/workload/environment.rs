//! The environment of a workload as it is each time it is started: what its deployer sealed, its secrets, and what a service is told of
//! where it runs.

use nex_process::Deadline;
use nex_protocol::id::NodeId;
use nex_protocol::seal::Environment;

use super::launch::Launcher;
use super::launch_error::LaunchError;
use super::spec::WorkloadSpec;
use crate::offered_nats::NATS_URL;

/// The variable that tells a service with triggers where it is asked.
const TRIGGER_SUBJECT: &str = "NEX_TRIGGER_SUBJECT";

impl Launcher {
    /// What the workload was given, its secrets as they are now, and what a service is told of where it runs.
    pub(super) async fn environment(&self, spec: &WorkloadSpec, by: Deadline) -> Result<Environment, LaunchError> {
        let mut environment = spec.environment.clone();
        environment.extend(Box::pin(self.secrets.resolve(spec, by)).await?);
        if !spec.kind.is_function() {
            let told = about(spec, &self.secrets.identity.node).into_iter();
            let offered = self.offered_nats.iter().map(|url| (NATS_URL, url.clone()));
            for (name, value) in told.chain(offered) {
                // What its deployer says counts.
                if !environment.keys().any(|own| own.eq_ignore_ascii_case(name)) {
                    environment.insert(name.to_owned(), value);
                }
            }
            if !spec.durable.is_empty() {
                // Where the node asks is not its deployer's to say.
                environment.retain(|own, _| !own.eq_ignore_ascii_case(TRIGGER_SUBJECT));
                environment.insert(TRIGGER_SUBJECT.to_owned(), spec.service_subject());
            }
        }
        Ok(environment)
    }
}

/// What a service finds in its environment of itself: enough to name itself to others, and nothing that is secret.
fn about(spec: &WorkloadSpec, node: &NodeId) -> [(&'static str, String); 4] {
    [
        ("NEX_WORKLOAD_ID", spec.id.to_string()),
        ("NEX_WORKLOAD_NAME", spec.name.to_string()),
        ("NEX_NAMESPACE", spec.namespace.to_string()),
        ("NEX_NODE_ID", node.to_string()),
    ]
}
