//! Time from the start of a node's process to its answers, next to a process that exits at once.

use std::time::Instant;

use anyhow::Result;
use nex_bus::connect::connect;
use nex_client::Client;
use nex_testkit::{NatsServer, eventually};
use serde::Serialize;

use crate::child::{self, NodeArgs};
use crate::fixture::{first_bid, ping};
use crate::load::Times;
use crate::plan::{Plan, TIMEOUT};

/// Times since the start of the process.
#[derive(Debug, Serialize)]
pub(crate) struct Starts {
    /// To the exit of a process that does nothing.
    pub(crate) bare_process: Times,
    /// To the first answer to AUCTION.
    pub(crate) first_bid: Times,
    /// To the answer to the PING after it.
    pub(crate) ping: Times,
    /// To the first warm agent.
    pub(crate) warm_agent: Times,
}

pub(crate) async fn measure(plan: &Plan) -> Result<Starts> {
    let nats = NatsServer::start().await;
    let (mut bare, mut bids, mut pings, mut warm) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.starts {
        let began = Instant::now();
        child::end(child::nothing()?).await?;
        bare.push(began.elapsed());

        // A new state directory each time, so that keys and journal are created as well.
        let dir = tempfile::tempdir()?;
        let args = NodeArgs { state_dir: dir.path().join("state"), ..NodeArgs::to(&nats.url()) };
        let client = Client::new(connect(&args.connection()).await?, "default".parse()?);
        let began = Instant::now();
        let node = child::node(&args)?;
        first_bid(&client).await?;
        bids.push(began.elapsed());
        ping(&client).await;
        pings.push(began.elapsed());
        let ready = || async { ping(&client).await.is_some_and(|node| node.warm_agents.unwrap_or(0) > 0) };
        if eventually(TIMEOUT, ready).await {
            warm.push(began.elapsed());
        }
        child::end(node).await?;
    }
    Ok(Starts { bare_process: Times::of(bare), first_bid: Times::of(bids), ping: Times::of(pings), warm_agent: Times::of(warm) })
}
