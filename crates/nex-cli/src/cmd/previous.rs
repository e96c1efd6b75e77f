//! `nex logs --previous`: which run of a workload was the one before its last start.

use nex_protocol::control::{HistoryEvent, HistoryRequest};
use nex_protocol::event::kind;
use nex_protocol::id::NodeId;

use crate::kept;
use crate::session::Session;

/// One start of a workload, as the numbers of a node's history bound it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) node: NodeId,
    pub(super) id: String,
    pub(super) after: u64,
    pub(super) until: Option<u64>,
}

impl Run {
    /// The run before the last one.
    pub(super) async fn previous(workload: &str, nodes: &[NodeId], session: &Session) -> anyhow::Result<Run> {
        let request = HistoryRequest { workload: Some(workload.to_owned()), ..HistoryRequest::default() };
        let namespace = session.client.namespace().as_str();
        let mut events = kept::open::<HistoryEvent>(session, nodes, &[namespace], &request).await?;
        let starts = events.rest().await.into_iter().filter(|(_, it)| it.event.r#type == kind::WORKLOAD_STARTED);
        let runs: Vec<Run> = starts
            .filter_map(|(node, it)| {
                let id = it.event.data.get("workload_id")?.as_str()?.to_owned();
                Some(Run { node, id, after: it.seq, until: None })
            })
            .collect();
        previous_of(runs).ok_or_else(|| {
            let next = format!("see what it says with `nex logs {workload} --tail 20`");
            anyhow::anyhow!("the nodes have kept nothing of a run of '{workload}' before its last start; next: {next}")
        })
    }
}

/// The run before the last one: of the same workload if there is one, else that of the copy that was started before it.
fn previous_of(mut runs: Vec<Run>) -> Option<Run> {
    let last = runs.pop()?;
    let same = runs.iter().rposition(|run| run.id == last.id);
    let at = same.or(runs.len().checked_sub(1))?;
    let mut run = runs.swap_remove(at);
    run.until = same.filter(|_| run.node == last.node).map(|_| last.after);
    Some(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_previous_run_is_the_one_before_the_last_start_of_the_same_workload_or_of_the_copy_before_it() {
        let node: NodeId = nkeys::KeyPair::new_server().public_key().parse().unwrap();
        let run = |id: &str, after, until| Run { node: node.clone(), id: id.into(), after, until };
        assert_eq!(previous_of(Vec::new()), None);
        assert_eq!(previous_of(vec![run("a", 1, None)]), None);
        let again = vec![run("a", 1, None), run("b", 2, None), run("a", 3, None), run("c", 4, None), run("a", 5, None)];
        assert_eq!(previous_of(again), Some(run("a", 3, Some(5))));
        assert_eq!(previous_of(vec![run("a", 1, None), run("a", 2, None), run("b", 3, None)]), Some(run("a", 2, None)));
    }
}
