//! Who is there, what runs where, and the lame duck.

use std::time::Duration;

use bytes::Bytes;
use nex_protocol::control::{
    EndedWorkload, InfoResponse, LameDuckRequest, LameDuckResponse, NodeSummary, SealedSettings, WorkloadPingRequest,
    WorkloadPingResponse, WorkloadSummary,
};
use nex_protocol::deploy::DeployedSettings;
use nex_protocol::envelope::{self, kind};
use nex_protocol::id::{NodeId, WorkloadName};
use nex_protocol::seal;
use nex_protocol::subject;
use nkeys::XKey;

use crate::Client;
use crate::gather::{Gather, GatherError};
use crate::request::{Question, RequestError};

/// A running workload and the node it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The node.
    pub node: NodeId,
    /// The node's name, if it has one.
    pub node_name: Option<String>,
    /// The workload.
    pub workload: WorkloadSummary,
}

/// A workload that has ended and the node it was on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The node.
    pub node: NodeId,
    /// The node's name, if it has one.
    pub node_name: Option<String>,
    /// The workload.
    pub workload: EndedWorkload,
}

/// Workloads of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Those that run.
    pub running: Vec<Running>,
    /// Those that ended lately, if they were asked for.
    pub ended: Vec<Ended>,
}

/// What a node has sealed of how a workload was deployed; nothing where that was for another curve key.
#[must_use]
pub fn open_settings(settings: &SealedSettings, sender: &XKey) -> Option<DeployedSettings> {
    let SealedSettings { by, sealed } = settings;
    let text = seal::open(sealed, sender, by).ok()?.remove(DeployedSettings::NAME)?;
    serde_json::from_str(&text).ok()
}

impl Client {
    /// Every node that answers, at most `wait`.
    ///
    /// # Errors
    /// [`GatherError`] when the question could not be sent, or nodes listen and cannot be heard; no nodes is no error.
    pub async fn nodes(&self, wait: Duration) -> Result<Vec<NodeSummary>, GatherError> {
        let mut answers = Gather::ask(&self.nats, subject::PING.to_owned(), Bytes::new(), wait).await?;
        let mut nodes = Vec::new();
        while let Some(message) = answers.next().await {
            match envelope::open::<NodeSummary>(kind::PING, &message.payload) {
                Ok(node) => nodes.push(node),
                Err(error) => tracing::debug!(%error, "skipped an answer to PING"),
            }
        }
        if answers.is_silent() {
            return Err(GatherError::Silence(subject::PING));
        }
        Ok(nodes)
    }

    /// Every workload of the namespace, or those with this id or name, on all nodes; at most `wait`.
    ///
    /// Nodes with no match stay silent, so a PING goes along: when all nodes have answered that and none this, it is over.
    ///
    /// # Errors
    /// [`GatherError`] when the question could not be sent, or nodes listen and cannot be heard; no workloads is no error.
    pub async fn workloads(&self, wanted: Option<&str>, wait: Duration) -> Result<Vec<Running>, GatherError> {
        self.find(wanted, &WorkloadPingRequest::default(), wait).await.map(|found| found.running)
    }

    /// The same, with what else is asked for: what has ended lately, the last lines of each. Nodes of 0.2.7 tell of neither.
    ///
    /// # Errors
    /// [`GatherError`] when the question could not be sent, or nodes listen and cannot be heard; no workloads is no error.
    pub async fn find(&self, wanted: Option<&str>, more: &WorkloadPingRequest, wait: Duration) -> Result<Found, GatherError> {
        self.find_on(subject::workload_ping(&self.namespace, wanted), more, wait).await
    }

    /// The same in all namespaces, which takes a permission of its own. Nodes of 0.2.7 tell nothing.
    ///
    /// # Errors
    /// [`GatherError`] when the question could not be sent, or nodes listen and cannot be heard; no workloads is no error.
    pub async fn find_everywhere(
        &self,
        wanted: Option<&str>,
        more: &WorkloadPingRequest,
        wait: Duration,
    ) -> Result<Found, GatherError> {
        self.find_on(subject::workload_ping_everywhere(wanted), more, wait).await
    }

    async fn find_on(&self, subject: String, more: &WorkloadPingRequest, wait: Duration) -> Result<Found, GatherError> {
        let body = match *more == WorkloadPingRequest::default() {
            true => Bytes::new(),
            false => serde_json::to_vec(more).unwrap_or_default().into(),
        };
        let mut answers = Gather::ask(&self.nats, subject, body, wait).await?;
        let mut present = Gather::ask(&self.nats, subject::PING.to_owned(), Bytes::new(), wait).await?;
        let (mut found, mut counting) = (Found::default(), true);
        loop {
            // Both branches are cancel-safe: a gather keeps its state outside the future.
            tokio::select! {
                answer = answers.next() => match answer {
                    Some(message) => found.add(&message.payload),
                    // Where the server says that nobody listens, that is all there is to know.
                    None if answers.is_silent() && present.is_silent() => return Err(GatherError::Silence(subject::PING)),
                    None => return Ok(found),
                },
                node = present.next(), if counting => if node.is_none() {
                    counting = false;
                    if present.has_answers() && !answers.has_answers() {
                        answers.hurry();
                    }
                },
            }
        }
    }

    /// How a workload was deployed, where this curve key sealed its environment; nothing of workloads of other keys, or where its node
    /// tells nothing (those of 0.2.7).
    ///
    /// # Errors
    /// [`GatherError`] when the question could not be sent.
    pub async fn settings(&self, id: &str, sender: &XKey, wait: Duration) -> Result<Option<DeployedSettings>, GatherError> {
        let more = WorkloadPingRequest { settings: true, ..WorkloadPingRequest::default() };
        let Found { running, .. } = self.find(Some(id), &more, wait).await?;
        let of_it = running.iter().filter(|running| running.workload.id == id);
        Ok(of_it.filter_map(|running| running.workload.settings.as_ref()).find_map(|settings| open_settings(settings, sender)))
    }

    /// The same of the newest workload of a name that this curve key deployed.
    ///
    /// # Errors
    /// [`GatherError`] when the question could not be sent.
    pub async fn settings_of(
        &self,
        name: &WorkloadName,
        sender: &XKey,
        wait: Duration,
    ) -> Result<Option<DeployedSettings>, GatherError> {
        let more = WorkloadPingRequest { settings: true, ..WorkloadPingRequest::default() };
        let Found { mut running, .. } = self.find(Some(name.as_str()), &more, wait).await?;
        // Ids begin with the time they were made.
        running.sort_by(|a, b| b.workload.id.cmp(&a.workload.id));
        let named = running.iter().filter(|running| running.workload.name == name.as_str());
        Ok(named.filter_map(|running| running.workload.settings.as_ref()).find_map(|settings| open_settings(settings, sender)))
    }

    /// What a node says of itself and of the namespace's workloads on it.
    ///
    /// # Errors
    /// [`RequestError`]
    pub async fn info(&self, node: &NodeId) -> Result<InfoResponse, RequestError> {
        let subject = subject::info(&self.namespace, node);
        let (expected, timeout) = (kind::INFO, self.timeout);
        self.ask(Question { verb: "INFO", node, subject, body: Vec::new(), expected, timeout }).await
    }

    /// Lets a node take no more workloads; there is no way back.
    ///
    /// # Errors
    /// [`RequestError`]
    pub async fn lame_duck(&self, node: &NodeId) -> Result<LameDuckResponse, RequestError> {
        self.drain(node, None).await
    }

    /// The same; what still runs after so long is stopped, and the node ends. Nodes of 0.2.7 take no notice of the time.
    ///
    /// # Errors
    /// [`RequestError`]
    pub async fn drain(&self, node: &NodeId, deadline: Option<Duration>) -> Result<LameDuckResponse, RequestError> {
        let subject = subject::lame_duck(node);
        let (expected, timeout) = (kind::LAME_DUCK, self.timeout);
        let deadline_ms = deadline.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let request = deadline_ms.map(|_| LameDuckRequest { deadline_ms });
        let body = request.map(|request| serde_json::to_vec(&request).unwrap_or_default()).unwrap_or_default();
        self.ask(Question { verb: "LAMEDUCK", node, subject, body, expected, timeout }).await
    }
}

impl Found {
    fn add(&mut self, body: &[u8]) {
        let opened = envelope::open::<WorkloadPingResponse>(kind::PING, body).map_err(|error| error.to_string());
        let parsed = opened.and_then(|answer| match answer.node_id.parse::<NodeId>() {
            Ok(node) => Ok((node, answer)),
            Err(error) => Err(error.to_string()),
        });
        match parsed {
            Ok((node, answer)) => {
                let node_name = answer.tags.get("node_name").cloned();
                let running = |workload| Running { node: node.clone(), node_name: node_name.clone(), workload };
                self.running.extend(answer.running_machines.into_iter().map(running));
                let ended = |workload| Ended { node: node.clone(), node_name: node_name.clone(), workload };
                self.ended.extend(answer.ended.into_iter().map(ended));
            }
            Err(error) => tracing::debug!(%error, "skipped an answer to WPING"),
        }
    }
}
