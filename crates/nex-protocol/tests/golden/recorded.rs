//! What the programs of 0.2.7 say is understood, and our replies have the bytes of theirs.

use std::path::PathBuf;

use nex_protocol::claims::Claims;
use nex_protocol::control::{AuctionRequest, InfoResponse, LameDuckResponse, NodeSummary, WorkloadPingResponse};
use nex_protocol::deploy::{DeployRequest, DeployResponse, StopRequest, StopResponse};
use nex_protocol::envelope::{ErrorCode, Failure, ReplyError, kind, open, success};
use nex_protocol::event::CloudEvent;
use nex_protocol::log::{Level, LogLine};
use nex_protocol::seal::{self, Environment};
use nex_protocol::subject::{Control, LogSource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/0.2.7").join(name)).unwrap()
}

fn json<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn key(name: &str) -> String {
    json::<Value>("keys.json")[name].as_str().unwrap().to_owned()
}

#[test]
fn every_subject_of_the_client_is_read() {
    let subjects = String::from_utf8(file("subjects.txt")).unwrap();
    let read: Vec<_> = subjects.lines().map(|subject| Control::parse(subject).unwrap_or_else(|| panic!("{subject}"))).collect();
    assert_eq!(read.len(), 8);
    assert!(read.contains(&Control::WorkloadPing { namespace: "default".into(), workload: Some("echo".into()) }));
    assert!(read.contains(&Control::Deploy { namespace: "default".into() }));
}

#[test]
fn auctions_of_the_client_are_read() {
    let function: AuctionRequest = json("request-auction-v8.json");
    assert_eq!(function, AuctionRequest { workload_types: Some(vec!["v8".into()]), ..Default::default() });
    let native: AuctionRequest = json("request-auction-native.json");
    assert_eq!((native.arch.as_deref(), native.os.as_deref()), (Some("amd64"), Some("linux")));
}

struct Deployed {
    request: DeployRequest,
    claims: Claims,
    environment: Environment,
}

fn deployed(name: &str) -> Deployed {
    let request: DeployRequest = json(name);
    let claims = Claims::decode(request.workload_jwt.as_deref().unwrap()).unwrap();
    assert_eq!(claims.check_times(claims.iat), Ok(()));
    let node = nkeys::XKey::from_seed(&key("node_xkey_seed")).unwrap();
    let (sealed, sender) = (request.environment.as_deref().unwrap(), request.sender_public_key.as_deref().unwrap());
    let environment = seal::open(sealed, &node, sender).unwrap();
    assert_eq!(request.target_node, Some(key("node_id")));
    Deployed { request, claims, environment }
}

#[test]
fn a_deploy_with_everything_is_read_verified_and_opened() {
    let Deployed { request, claims, environment } = deployed("request-deploy-run.json");
    assert_eq!(request.location.unwrap().to_string(), "nats://NEXCLIFILES/echo");
    assert_eq!(request.argv, Some(vec!["-v".into(), "--color".into()]));
    assert_eq!(request.description.as_deref(), Some("answers on svc.echo"));
    assert_eq!((request.r#type.as_deref(), request.essential), (Some("native"), Some(true)));
    assert_eq!(request.sender_public_key, Some(key("sender_xkey")));
    assert_eq!((claims.sub.as_str(), claims.iss), ("echo", key("issuer")));
    let expected = [("TOKEN", "s3cret"), ("greeting", "hello world")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(environment, Environment::from(expected));
}

#[test]
fn a_deploy_with_nothing_optional_is_read_verified_and_opened() {
    let Deployed { request, claims, environment } = deployed("request-deploy-run-bare.json");
    assert_eq!((request.argv, request.trigger_subjects, request.host_services), (None, None, None));
    assert_eq!(request.jsdomain.as_deref(), Some(""));
    assert_eq!(claims.nats.hash.as_deref(), Some("abc12345TODOmakethisreal"));
    assert_eq!(environment, Environment::new());
}

#[test]
fn deploys_of_devrun_are_read_verified_and_opened() {
    let function = deployed("request-deploy-devrun-v8.json");
    assert_eq!(function.request.trigger_subjects, Some(vec!["js.echo".into(), "js.*.more".into()]));
    assert_eq!(function.environment, Environment::from([("KEY".to_owned(), "value".to_owned())]));
    let native = deployed("request-deploy-devrun-native.json");
    assert_eq!(native.claims.sub, "true");
}

#[test]
fn stops_are_read_and_verified() {
    for (name, workload) in [("request-stop.json", "echo"), ("request-stop-devrun.json", "echofunctionjs")] {
        let request: StopRequest = json(name);
        let claims = Claims::decode(request.workload_jwt.as_deref().unwrap()).unwrap();
        assert_eq!((claims.sub.as_str(), claims.nats.hash), (workload, None));
        assert_eq!(request.workload_id.as_deref(), Some("cpv1o2s0tq5c73f0abcd"));
    }
}

/// The id of a token of 0.2.7 is a digest of its issuer, subject and second: two tokens of one second share it, and the
/// `hash` claim alone tells a start from a stop.
#[test]
fn the_stop_and_the_deploy_of_one_devrun_may_share_their_token_id() {
    let stop: StopRequest = json("request-stop-devrun.json");
    let stop = Claims::decode(stop.workload_jwt.as_deref().unwrap()).unwrap();
    let start = deployed("request-deploy-devrun-v8.json").claims;
    assert_eq!((&stop.jti, stop.iat), (&start.jti, start.iat));
    assert!(start.nats.hash.is_some() && stop.nats.hash.is_none());
}

fn same_bytes<T: DeserializeOwned + Serialize>(name: &str, kind: &'static str) {
    let theirs = file(name);
    let body: T = open(kind, &theirs).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(String::from_utf8(success(kind, &body)).unwrap(), String::from_utf8(theirs).unwrap(), "{name}");
}

#[test]
fn our_replies_have_the_bytes_of_theirs() {
    same_bytes::<NodeSummary>("reply-auction.json", kind::AUCTION);
    same_bytes::<NodeSummary>("reply-ping.json", kind::PING);
    same_bytes::<WorkloadPingResponse>("reply-wping.json", kind::PING);
    same_bytes::<InfoResponse>("reply-info.json", kind::INFO);
    same_bytes::<InfoResponse>("reply-info-empty.json", kind::INFO);
    same_bytes::<DeployResponse>("reply-deploy.json", kind::RUN);
    same_bytes::<StopResponse>("reply-stop.json", kind::STOP);
    same_bytes::<LameDuckResponse>("reply-lameduck.json", kind::LAME_DUCK);
}

#[test]
fn their_failures_are_failures_to_us() {
    for (name, kind, text) in [
        ("reply-deploy-failed.json", kind::RUN, "Failed to cache workload bytes: nats: object not found"),
        ("reply-stop-failed.json", kind::STOP, "No such workload"),
    ] {
        let expected = ReplyError::Failed(Failure::new(ErrorCode::Failed, text));
        assert_eq!(open::<Value>(kind, &file(name)), Err(expected), "{name}");
    }
}

#[test]
fn their_events_say_the_same_when_we_write_them() {
    for kind in ["node_started", "node_entered_lameduck", "node_stopped", "workload_deployed", "function_exec_succeeded"] {
        let name = format!("event-{kind}.json");
        let event: CloudEvent = json(&name);
        assert_eq!(event.r#type, kind);
        assert_eq!(serde_json::to_value(&event).unwrap(), json::<Value>(&name));
    }
}

#[test]
fn their_log_lines_and_both_orders_of_their_subjects_are_read() {
    let subjects = String::from_utf8(file("log-subjects.txt")).unwrap();
    let files = ["log-stdout.json", "log-stderr.json", "log-function.json"];
    let expected = [("ticker", Level::Warn), ("ticker", Level::Info), ("echofunctionjs", Level::Debug)];
    for ((subject, name), (workload, level)) in subjects.lines().zip(files).zip(expected) {
        let (source, line) = (LogSource::parse(subject).unwrap(), json::<LogLine>(name));
        assert_eq!((source.name.as_str(), source.id), (workload, line.id), "{subject}");
        assert_eq!(line.level, level, "{name}");
    }
}
