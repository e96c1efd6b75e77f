//! Where memory is for one worker only. A file of its own, as the limit is the whole process's.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{call, fixture};
use nex_engine::Function;
use nex_engine_js::{prepare, start};
use nix::sys::resource::{Resource, setrlimit};

#[tokio::test]
async fn workers_for_which_there_is_no_memory_are_not_missed() {
    let mut fixture = fixture("let n = 0; (s, p) => [++n, ...p]");
    fixture.launch.limits.memory_bytes = 512 << 20;
    setrlimit(Resource::RLIMIT_DATA, 1 << 30, 1 << 30).unwrap();
    let function = start(fixture.launch, prepare()).await.unwrap();
    for _ in 0..3 {
        let replies = futures::future::join_all((0..32_u8).map(|number| function.invoke(call(vec![number])))).await;
        assert!(replies.iter().zip(0..).all(|(reply, number)| *reply == Ok(format!("[1,{number}]").into())), "{replies:?}");
    }
}
