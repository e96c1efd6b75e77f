//! The example as nex runs it: an environment, then SIGINT.

use std::time::Duration;

use nex_testkit::{NatsServer, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "this test owns the service's process")]
async fn it_answers_and_ends_well_on_sigint() {
    let nats = NatsServer::start().await;
    let client = nats.client().await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_echo-service"));
    let mut service = command.env_clear().env("NATS_URL", nats.url()).spawn().unwrap();

    let answers = async || client.request("svc.echo", "hello".into()).await.is_ok_and(|reply| reply.payload == "hello");
    assert!(eventually(Duration::from_secs(10), answers).await);
    let info = client.request("$SRV.PING.EchoService", "".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&info.payload).contains("EchoService"));

    kill(Pid::from_raw(i32::try_from(service.id()).unwrap()), Signal::SIGINT).unwrap();
    let ended = tokio::task::spawn_blocking(move || service.wait());
    assert!(tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap().unwrap().unwrap().success());
}
