//! Functions: deployed, called, stopped.

use nex_protocol::deploy::WorkloadType;
use nex_testkit::guest;
use serde_json::json;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_both_kinds_are_deployed_called_and_stopped_and_nothing_is_left() {
    let mut world = World::start(json!({})).await;
    let js = world.run("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    assert_eq!(world.call("greet", "world").await, "\"Hello, world!\"");
    world.run("echo", WorkloadType::Wasm, &guest::assemble(guest::ECHO_WAT)).await;
    assert_eq!(world.call("echo", "ping").await, "ping");
    world.stop_workload(&js).await;
    world.stop().await;
}
