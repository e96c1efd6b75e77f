//! The environment of a workload as it is each time it is started: what its deployer sealed, its secrets, and what a service is told of
//! where it runs.

use nex_process::Deadline;
use nex_protocol::id::NodeId;
use nex_protocol::seal::{Environment, NATS_CREDS};

use super::launch::Launcher;
use super::launch_error::LaunchError;
use super::spec::WorkloadSpec;
use crate::offered_nats::{CREDENTIALS, NATS_URL};

/// The variable that tells a service with triggers where it is asked.
const TRIGGER_SUBJECT: &str = "NEX_TRIGGER_SUBJECT";
/// That of the prefix of inboxes that a user may subscribe.
const INBOX_PREFIX: &str = "NATS_INBOX_PREFIX";

impl Launcher {
    /// What the workload was given, its secrets as they are now, and what a service is told of where it runs.
    pub(super) async fn environment(&self, spec: &WorkloadSpec, by: Deadline) -> Result<Environment, LaunchError> {
        let mut environment = spec.environment.clone();
        environment.extend(Box::pin(self.secrets.resolve(spec, by)).await?);
        if !spec.kind.is_function() {
            let made = self.credentials(spec, &mut environment);
            let told = about(spec, &self.secrets.identity.node).into_iter().chain(made);
            for (name, value) in told {
                // What its deployer says counts.
                if !environment.keys().any(|own| own.eq_ignore_ascii_case(name)) {
                    environment.insert(name.to_owned(), value);
                }
            }
            if let Some(offered) = &self.offered_nats {
                offered.put_into(&mut environment);
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

impl Launcher {
    /// Puts credentials into an environment that has none, where the node makes users, and gives what a client of NATS needs to know besides.
    fn credentials(&self, spec: &WorkloadSpec, environment: &mut Environment) -> Option<(&'static str, String)> {
        let is_given = |environment: &Environment| {
            environment
                .keys()
                .any(|own| own == NATS_CREDS || [CREDENTIALS, NATS_URL].iter().any(|name| own.eq_ignore_ascii_case(name)))
        };
        let Some(users) = self.service_users.as_ref().filter(|_| !is_given(environment)) else {
            spec.renewal.never();
            return None;
        };
        let user = users.mint(spec);
        environment.insert(NATS_CREDS.to_owned(), user.credentials);
        spec.renewal.at(user.renew_at);
        Some((INBOX_PREFIX, user.inbox_prefix))
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
