//! Serves the host calls of an instance: as many at once as it may, each in a task, further ones refused.

use std::sync::Arc;

use async_nats::Client;
use nex_host::{CallContext, HostServices};
use nex_process::TaskScope;
use nex_protocol::host::HostError;
use tokio::sync::{Semaphore, mpsc};

use crate::agents::inbox::HostCall;
use crate::connections::{Connections, HostConnection};
use crate::workload::spec::WorkloadSpec;

/// Host calls of one instance answered at once.
const MAX_CALLS: usize = 64;

/// Answers host calls of this node's workloads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HostCallServer {
    /// The services.
    pub host: Arc<HostServices>,
    /// The connections workloads use.
    pub connections: Connections,
    /// Where answers go: the internal bus.
    pub bus: Client,
}

impl HostCallServer {
    /// Serves an instance of a workload until its inbox is closed or the scope ends.
    pub fn serve(&self, scope: &TaskScope, spec: Arc<WorkloadSpec>, mut calls: mpsc::Receiver<HostCall>) {
        self.connections.attach(&spec);
        let (server, answers) = (self.clone(), scope.child("host calls"));
        scope.spawn("host calls", async move {
            let permits = Arc::new(Semaphore::new(MAX_CALLS));
            while let Some(call) = calls.recv().await {
                let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                    let message = format!("more than {MAX_CALLS} host calls of this workload are under way");
                    nex_host::respond(&server.bus, &call.message, Err(HostError { code: 503, message })).await;
                    continue;
                };
                let (server, spec) = (server.clone(), Arc::clone(&spec));
                answers.spawn("host call", async move {
                    server.answer(&spec, &call).await;
                    drop(permit);
                });
            }
        });
    }

    async fn answer(&self, spec: &WorkloadSpec, HostCall { call, message }: &HostCall) {
        let answer = match self.connections.host(spec).await {
            Ok(HostConnection { nats, denials, is_narrow }) => {
                let (namespace, workload) = (spec.namespace.clone(), spec.name.clone());
                let context = CallContext { namespace, workload, nats, denials, is_narrow };
                self.host.call(&context, call, message).await
            }
            Err(error) => Err(HostError { code: 500, message: error.to_string() }),
        };
        nex_host::respond(&self.bus, message, answer).await;
    }

    /// Lets go of what was held for a workload.
    pub fn forget(&self, spec: &WorkloadSpec) {
        for client in self.connections.forget(&spec.id) {
            self.host.forget(&client);
        }
    }
}
