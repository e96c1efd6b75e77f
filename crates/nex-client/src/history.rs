//! Log lines and events that nodes have kept: asked for page by page, and put in order where there are many nodes.

use std::collections::{BTreeMap, VecDeque};

use futures::future::join_all;
use nex_protocol::control::{HistoryEvent, HistoryLine, HistoryRecord, HistoryRequest, HistoryResponse};
use nex_protocol::envelope::kind;
use nex_protocol::id::NodeId;
use nex_protocol::subject::{self, HistoryKind};

use crate::Client;
use crate::request::{Question, RequestError};

/// A record that can be asked for.
pub trait Kept: HistoryRecord {
    /// Of which kind it is.
    const KIND: HistoryKind;

    /// Takes those of a page.
    fn of(page: &mut HistoryResponse) -> Vec<Self>
    where
        Self: Sized;
}

impl Kept for HistoryLine {
    const KIND: HistoryKind = HistoryKind::Logs;

    fn of(page: &mut HistoryResponse) -> Vec<Self> {
        std::mem::take(&mut page.lines)
    }
}

impl Kept for HistoryEvent {
    const KIND: HistoryKind = HistoryKind::Events;

    fn of(page: &mut HistoryResponse) -> Vec<Self> {
        std::mem::take(&mut page.events)
    }
}

/// What one node has kept of one namespace, being read.
#[derive(Debug)]
struct Source<T> {
    node: NodeId,
    namespace: String,
    request: HistoryRequest,
    records: VecDeque<T>,
    has_more: bool,
}

/// What nodes have kept, in the order of time; of each node in the order of its numbers.
#[derive(Debug)]
pub struct History<T> {
    client: Client,
    sources: Vec<Source<T>>,
    /// The number up to which each node was asked: what comes live with a larger one is new.
    pub until: BTreeMap<NodeId, u64>,
    /// Nodes that did not answer, and why.
    pub missed: Vec<(NodeId, RequestError)>,
    /// Records that could not be read by their nodes.
    pub damaged: u64,
    /// Whether there may be older ones that were not looked through.
    pub is_cut: bool,
}

impl Client {
    /// Begins to read what nodes have kept of namespaces.
    pub async fn kept<T: Kept>(&self, nodes: &[NodeId], namespaces: &[&str], request: &HistoryRequest) -> History<T> {
        let sources = nodes.iter().flat_map(|node| namespaces.iter().map(move |namespace| (node, namespace)));
        let sources = sources.map(|(node, namespace)| Source {
            node: node.clone(),
            namespace: (*namespace).to_owned(),
            request: request.clone(),
            records: VecDeque::new(),
            has_more: true,
        });
        let mut history = History {
            client: self.clone(),
            sources: sources.collect(),
            until: BTreeMap::new(),
            missed: Vec::new(),
            damaged: 0,
            is_cut: false,
        };
        history.refill().await;
        history
    }

    async fn history_page(
        &self,
        of: (&NodeId, &str, HistoryKind),
        request: &HistoryRequest,
    ) -> Result<HistoryResponse, RequestError> {
        let (node, namespace, kind) = of;
        let subject = subject::history(namespace, node, kind);
        let body = serde_json::to_vec(request).unwrap_or_default();
        let (expected, timeout) = (kind::HISTORY, self.timeout.max(PAGE_TIMEOUT));
        self.ask(Question { verb: "HISTORY", node, subject, body, expected, timeout }).await
    }
}

/// Longest wait for a page, which is read from a disk, unless requests may take longer anyway.
const PAGE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

impl<T: Kept> History<T> {
    /// The next record, and the node that has kept it.
    pub async fn next(&mut self) -> Option<(NodeId, T)> {
        self.refill().await;
        let heads = self.sources.iter().enumerate().filter_map(|(index, source)| Some((source.records.front()?.at_ms(), index)));
        let (_, index) = heads.min()?;
        let source = self.sources.get_mut(index)?;
        source.records.pop_front().map(|record| (source.node.clone(), record))
    }

    /// All that is left.
    pub async fn rest(&mut self) -> Vec<(NodeId, T)> {
        let mut all = Vec::new();
        while let Some(next) = self.next().await {
            all.push(next);
        }
        all
    }

    /// Has a record of each source, if it has one.
    async fn refill(&mut self) {
        loop {
            let empty = self.sources.iter().enumerate().filter(|(_, source)| source.records.is_empty() && source.has_more);
            let client = &self.client;
            let pages = empty.map(|(index, source)| async move {
                (index, client.history_page((&source.node, &source.namespace, T::KIND), &source.request).await)
            });
            let pages = join_all(pages).await;
            if pages.is_empty() {
                return;
            }
            for (index, page) in pages {
                self.take(index, page);
            }
        }
    }

    fn take(&mut self, index: usize, page: Result<HistoryResponse, RequestError>) {
        let Some(source) = self.sources.get_mut(index) else { return };
        source.has_more = false;
        match page {
            Ok(mut page) => {
                self.damaged += page.damaged;
                self.is_cut |= page.is_cut;
                // A node that answers nonsense is not asked for ever.
                if let Some(next) = page.next.filter(|next| source.request.after.is_none_or(|after| *next > after)) {
                    source.has_more = true;
                    (source.request.after, source.request.until, source.request.tail) = (Some(next), Some(page.until), None);
                }
                let until = self.until.entry(source.node.clone()).or_insert(page.until);
                *until = page.until.max(*until);
                source.records = T::of(&mut page).into();
            }
            Err(error) => self.missed.push((source.node.clone(), error)),
        }
    }
}
