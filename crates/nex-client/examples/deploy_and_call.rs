//! Deploys a JavaScript function to whichever node bids best, calls it, and stops it again.
//!
//! Needs a NATS server with JetStream and a node that takes `v8`. `nex up` starts both, and says in a NATS context how to reach them:
//!
//! ```sh
//! cargo run -p nex-client --example deploy_and_call -- ~/.config/nats/context/nex.json
//! ```

use std::time::Duration;

use nex_bus::connect::connect;
use nex_bus::context::{self, Directories};
use nex_client::Client;
use nex_client::artifact::{DEFAULT_BUCKET, LocalFile, NewBucket, Upload};
use nex_client::deploy::{Deployment, Keys};
use nex_protocol::control::AuctionRequest;
use nex_protocol::deploy::{Location, WorkloadType};
use nkeys::{KeyPair, XKey};

const FUNCTION: &str = "(subject, payload) => 'hello, ' + new TextDecoder().decode(payload)";

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows its result")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let context = std::env::args().nth(1).ok_or("give the file of a NATS context")?;
    let nats = connect(&context::load(&context, &Directories::default())?).await?;
    let client = Client::new(nats, "default".parse()?);

    // The artifact goes to an object store, from where the node takes it.
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), FUNCTION)?;
    let location = Location::new(DEFAULT_BUCKET, "hello").ok_or("no such location")?;
    let file = LocalFile::read(file.path()).await?;
    let upload = Upload { location, jetstream_domain: None, new_bucket: NewBucket::default(), file };
    let artifact = client.upload(&upload, |_sent, _total| ()).await?.artifact;

    // Nodes that take JavaScript bid; the best bid wins.
    let wanted = AuctionRequest { workload_types: Some(vec!["v8".into()]), ..AuctionRequest::default() };
    let bid = client.auction(&wanted, Duration::from_secs(2)).await?.best()?;

    // Keep the issuer's seed if the workload is to be stopped by another process.
    let keys = Keys { issuer: KeyPair::new_account(), sender: XKey::new() };
    let deployment = Deployment::new("hello".parse()?, WorkloadType::V8, artifact);
    let started = client.deploy(&deployment, &bid.target, &keys).await?;

    let reply = client.call("hello", "world".into(), Duration::from_secs(5)).await?;
    println!("{}", String::from_utf8_lossy(&reply));

    client.stop(&bid.node, &started.id.parse()?, &deployment.name, &keys.issuer).await?;
    Ok(())
}
