//! Components by the drafts of WASI: objects in the workload's own bucket, and messages from and to others.

use nex_testkit::guest::{IO_WIT, component};

use crate::world::World;

const BLOBS: &str = include_str!("../../../crates/nex-engine-wasm/tests/guests/blobs.wat");
const MESSAGES: &str = include_str!("../../../crates/nex-engine-wasm/tests/guests/messages.wat");
const BLOBSTORE_WIT: &str = include_str!("../../../crates/nex-engine-wasm/wit/blobstore/blobstore.wit");
const WASMCLOUD_WIT: &str = include_str!("../../../crates/nex-engine-wasm/wit/messaging/messaging.wit");
const MESSAGING_WIT: &str = include_str!("../../../crates/nex-engine-wasm/wit/wasi-messaging/messaging.wit");
const BLOBS_WORLD: &str = "package nex:test;
world guest {
  import wasi:io/streams@0.2.0;
  import wasi:blobstore/blobstore@0.2.0-draft;
  import wasi:blobstore/container@0.2.0-draft;
  import wasmcloud:messaging/consumer@0.2.0;
  export wasmcloud:messaging/handler@0.2.0;
}";
const MESSAGES_WORLD: &str = "package nex:test;
world guest {
  import wasi:messaging/types@0.2.0-draft;
  import wasi:messaging/producer@0.2.0-draft;
  import wasi:messaging/request-reply@0.2.0-draft;
  export wasi:messaging/incoming-handler@0.2.0-draft;
}";

#[test]
fn a_component_keeps_objects_from_call_to_call_and_another_workload_has_none_of_them() {
    let world = World::new();
    let _up = world.up(&[]);
    let blobs = world.file("blobs.wasm", component(BLOBS, &[IO_WIT, BLOBSTORE_WIT, WASMCLOUD_WIT], BLOBS_WORLD));
    for name in ["mine", "other"] {
        world.nex(&["devrun", &blobs, "--name", name, "--trigger_subject", &format!("fn.{name}")]).expect(0);
    }
    let says = |name: &str, payload: &str| world.nex(&["call", &format!("fn.{name}"), payload]).expect(0).stdout;
    assert_eq!(says("mine", "whello"), [0]);
    assert_eq!(says("mine", "r"), b"ell");
    assert_eq!(says("mine", "h"), [1]);
    assert_eq!(says("mine", "l"), b"thing");
    assert_eq!(says("other", "h"), [0]);
    assert_eq!(says("mine", "d"), [0]);
    assert_eq!(says("mine", "h"), [0]);
}

#[test]
fn a_component_of_wasi_messaging_is_called_with_messages_and_asks_others() {
    let world = World::new();
    let _up = world.up(&[]);
    let messages = world.file("messages.wasm", component(MESSAGES, &[MESSAGING_WIT], MESSAGES_WORLD));
    let other = world.file("other.js", "(subject, payload) => new TextEncoder().encode(`${subject} heard it`)");
    world.nex(&["devrun", &messages, "--trigger_subject", "fn.messages"]).expect(0);
    world.nex(&["call", "fn.messages", "request"]).expect(1);
    world.nex(&["devrun", &other, "--trigger_subject", "other.subject"]).expect(0);
    assert_eq!(world.nex(&["call", "fn.messages", "request"]).expect(0).stdout, b"other.subject heard it");
    assert_eq!(world.nex(&["call", "fn.messages", "echo"]).expect(0).stdout, b"echo");
    world.nex(&["call", "fn.messages", "fail"]).expect(1).says(&["refused"]);
}
