//! Answers that name many workloads, as what fits into messages: a list in several of them, a node's description without its last ones. Pure.

use nex_protocol::control::{InfoResponse, WorkloadPingResponse};
use serde::Serialize;

/// Bytes of a message beside what is answered.
const ENVELOPE: usize = 1024;
/// Bytes of the name of a list, which is not written where the list is empty.
const NAME: usize = r#""running_machines":[],"#.len();

/// The answer in as many messages of at most so many bytes as it takes.
pub(super) fn pages(whole: WorkloadPingResponse, message: usize) -> Vec<WorkloadPingResponse> {
    if fits(&whole, message) {
        return vec![whole];
    }
    let WorkloadPingResponse { running_machines, ended, .. } = whole;
    let empty = WorkloadPingResponse { running_machines: Vec::new(), ended: Vec::new(), ..whole };
    let room = message.saturating_sub(ENVELOPE + NAME + size(&empty));
    let running = chunks(running_machines, room)
        .into_iter()
        .map(|running_machines| WorkloadPingResponse { running_machines, ..empty.clone() });
    let ended = chunks(ended, room).into_iter().map(|ended| WorkloadPingResponse { ended, ..empty.clone() });
    running.chain(ended).collect()
}

/// The answer with as many workloads as fit into a message of so many bytes; it says how many it leaves out.
pub(super) fn cut(mut whole: InfoResponse, message: usize) -> InfoResponse {
    if fits(&whole, message) {
        return whole;
    }
    let machines = std::mem::take(&mut whole.machines);
    let all = machines.len();
    // The longest number that can stand there needs room as well.
    whole.more_machines = all;
    let room = message.saturating_sub(ENVELOPE + NAME + size(&whole));
    let machines = chunks(machines, room).into_iter().next().unwrap_or_default();
    InfoResponse { more_machines: all - machines.len(), machines, ..whole }
}

/// What is listed, in pieces of at most so many bytes; what is larger by itself is one of its own.
fn chunks<T: Serialize>(items: Vec<T>, room: usize) -> Vec<Vec<T>> {
    let (mut chunks, mut left) = (Vec::<Vec<T>>::new(), 0);
    for item in items {
        // And a comma.
        let bytes = size(&item) + 1;
        match chunks.last_mut().filter(|_| bytes <= left) {
            Some(chunk) => {
                chunk.push(item);
                left -= bytes;
            }
            None => {
                chunks.push(vec![item]);
                left = room.saturating_sub(bytes);
            }
        }
    }
    chunks
}

fn fits(answer: &impl Serialize, message: usize) -> bool {
    size(answer) + ENVELOPE <= message
}

fn size(answer: &impl Serialize) -> usize {
    serde_json::to_vec(answer).map_or(usize::MAX / 2, |json| json.len())
}

#[cfg(test)]
mod tests {
    use nex_protocol::control::{EndedWorkload, Machine, WorkloadSummary};
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: usize) -> String {
        "x".repeat(bytes)
    }

    proptest! {
        #[test]
        fn every_page_fits_and_nothing_is_lost(
            names in proptest::collection::vec(0_usize..600, 0..60),
            ends in proptest::collection::vec(0_usize..600, 0..20),
            message in 4_000_usize..20_000,
        ) {
            let whole = WorkloadPingResponse {
                node_id: "N".to_owned(),
                running_machines: names.iter().map(|bytes| WorkloadSummary { name: text(*bytes), ..WorkloadSummary::default() }).collect(),
                ended: ends.iter().map(|bytes| EndedWorkload { name: text(*bytes), ..EndedWorkload::default() }).collect(),
                ..WorkloadPingResponse::default()
            };
            let pages = pages(whole.clone(), message);
            prop_assert!(pages.iter().all(|page| fits(page, message) && page.node_id == "N"));
            let (mut running, mut ended) = (Vec::new(), Vec::new());
            for page in pages {
                running.extend(page.running_machines);
                ended.extend(page.ended);
            }
            prop_assert_eq!((running, ended), (whole.running_machines, whole.ended));
        }

        #[test]
        fn what_is_left_out_is_counted_and_its_number_has_room(names in proptest::collection::vec(0_usize..600, 0..60), message in 4_000_usize..20_000) {
            let machines: Vec<_> = names.iter().map(|bytes| {
                let mut machine = Machine::default();
                machine.workload.name = text(*bytes);
                machine
            }).collect();
            let cut = cut(InfoResponse { machines: machines.clone(), ..InfoResponse::default() }, message);
            prop_assert!(fits(&cut, message));
            prop_assert_eq!(cut.machines.len() + cut.more_machines, machines.len());
            prop_assert_eq!(&cut.machines[..], &machines[..cut.machines.len()]);
        }
    }
}
