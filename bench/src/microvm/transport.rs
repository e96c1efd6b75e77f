//! Measures the transport into a guest and back: pings of the agent on the internal bus, next to a native responder on the same bus with an
//! agent's credentials.

use anyhow::Result;
use bytes::Bytes;
use nex_protocol::agent::subject;

use super::fixture::AgentFixture;
use crate::calls::{NATIVE, Row, WARM_UP, row};
use crate::child::{self, NodeArgs};
use crate::load;
use crate::plan::Plan;

pub(crate) async fn measure(plan: &Plan, fixture: &AgentFixture) -> Result<Vec<Row>> {
    let (id, user) = fixture.user();
    let native = NodeArgs { user_jwt: Some(user.jwt), user_seed: Some(user.seed), ..NodeArgs::to(fixture.bus_url()) };
    let ping = |id| subject::ping(id);
    let responder = child::responder(&native, &ping(&id))?;
    let agent = fixture.agent(fixture.bus_url()).await?;
    let variants =
        [(ping(&id), responder.id().unwrap_or_default()), (ping(&agent.id), agent.sandbox.record().leader.pid.unsigned_abs())];
    let payload = Bytes::from(vec![b'x'; plan.payload_bytes]);
    // Wait until the responder's process has subscribed.
    for (subject, _) in &variants {
        load::wait_for(fixture.client(), subject, &payload).await?;
    }
    let mut turns = vec![[Vec::new(), Vec::new()]; plan.in_flight.len()];
    for round in 0..plan.rounds {
        for (in_flight, turns) in plan.in_flight.iter().zip(&mut turns) {
            for place in 0..variants.len() {
                let which = (round + place) % variants.len();
                let (Some((subject, answerer)), Some(turns)) = (variants.get(which), turns.get_mut(which)) else { continue };
                load::turn(fixture.client(), subject, *in_flight, &payload, (*answerer, WARM_UP)).await?;
                turns.push(load::turn(fixture.client(), subject, *in_flight, &payload, (*answerer, plan.turn)).await?);
            }
        }
    }
    child::end(responder).await?;
    fixture.stop(agent).await?;
    let rows = plan.in_flight.iter().zip(&turns).flat_map(|(in_flight, [native, guest])| {
        [row("transport", NATIVE, *in_flight, native, native), row("transport", "agent ping", *in_flight, guest, native)]
    });
    Ok(rows.collect())
}
