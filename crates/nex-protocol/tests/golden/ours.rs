//! What we send, one file a message: a change of these bytes is a change of the wire, made on purpose or not at all.

use std::path::PathBuf;

use nex_protocol::agent::{
    AgentEvent, Answer, Deploy, DirectTriggers, EventAck, Handshake, Identity, Limits, LogEntry, Logs, Ping, Pong, Precompiled,
    RejectCode, Undeploy, Welcome,
};
use nex_protocol::control::{
    AuctionRequest, HistoryEvent, HistoryLine, HistoryRequest, HistoryResponse, HistorySummary, HostUse, InfoResponse,
    LameDuckResponse, Machine, MachineWorkload, Memory, NodeSummary, QuotaSummary, Tags, WorkloadPingResponse, WorkloadSummary,
};
use nex_protocol::deploy::{
    ConnectionDetails, DeployRequest, DeployResponse, HealthCheck, JobPolicy, Location, RequestedHealth, RequestedLimits,
    RequestedPlacement, RunPolicy, StopRequest, StopResponse, WorkloadType,
};
use nex_protocol::digest::Digest;
use nex_protocol::envelope::{ErrorCode, Failure, failure, kind, success};
use nex_protocol::event::{self, CloudEvent};
use nex_protocol::log::{Level, LogLine};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const NODE: &str = "NBDISV664K4USBAEJ7XMXGRGJ5MCU364RFA7WKIZXBCJMNWIFNADBKVZ";
const XKEY: &str = "XBPEIFBEHSXZLJ4WQ4MO6QQ66KKFF4DD6YK2MIHZGIFQDHCIVS3D4P3O";
const ISSUER: &str = "ACJ5AH2XOKFGPZUOXO6KIF676G3XV7WGV5PXKG7AHBZSF7CZW5FMMFIR";
const WORKLOAD: &str = "cpv1o2s0tq5c73f0abcd";
const DIGEST: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// Compares bytes with `golden/<name>.json`, or writes that file when `UPDATE_GOLDEN` is set.
fn check_bytes(name: &str, bytes: Vec<u8>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("json");
    let ours = String::from_utf8(bytes).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &ours).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(ours, golden, "{name}: if the wire changed on purpose, run again with UPDATE_GOLDEN=1 and read the difference");
}

/// The same for a message that is also read: what is read back says the same.
fn check<T: Serialize + DeserializeOwned>(name: &str, message: &T) {
    let bytes = serde_json::to_vec(message).unwrap();
    let read: T = serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(serde_json::to_vec(&read).unwrap(), bytes, "{name}");
    check_bytes(name, bytes);
}

fn tags() -> Tags {
    [("nex.arch", "amd64"), ("nex.cpucount", "8"), ("nex.os", "linux"), ("node_name", "quiet-lamp")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn summary() -> NodeSummary {
    NodeSummary {
        node_id: NODE.into(),
        nexus: "nexus".into(),
        version: "0.1.0".into(),
        uptime: "4m2s".into(),
        target_xkey: XKEY.into(),
        xkey_signature: "c2lnbmF0dXJl".into(),
        tags: tags(),
        running_machines: 1,
        warm_agents: Some(2),
        declined: Vec::new(),
        taken_trigger: None,
    }
}

fn connection() -> ConnectionDetails {
    ConnectionDetails {
        nats_url: "nats://127.0.0.1:4222".into(),
        nats_user_jwt: "eyJ0.eyJq.Zk".into(),
        nats_user_seed: "SUA".into(),
    }
}

#[test]
fn questions_about_nodes() {
    check("auction", &AuctionRequest::default());
    let asked = AuctionRequest {
        arch: Some("amd64".into()),
        os: Some("linux".into()),
        sandboxed: Some(false),
        tags: Some([("zone".to_owned(), "garden".to_owned())].into()),
        workload_types: Some(vec!["native".into()]),
        explain: true,
        ..AuctionRequest::default()
    };
    check("auction-explain", &asked);
    let (isolation, namespace) = (Some("process".into()), Some("default".into()));
    check("auction-isolation", &AuctionRequest { isolation, namespace, ..asked.clone() });
    let counted = AuctionRequest {
        namespace: Some("default".into()),
        issuer: Some(ISSUER.into()),
        memory_mib: Some(64),
        machine_class: Some("large".into()),
        replaces: Some("greet".into()),
        ..asked.clone()
    };
    check("auction-quotas", &counted);
    let (namespace, triggers) = (Some("default".into()), vec!["fn.greet".into()]);
    check("auction-triggers", &AuctionRequest { namespace, triggers, ..asked });
    check_bytes("auction-reply", success(kind::AUCTION, &summary()));
    let declined = NodeSummary { declined: vec!["it does not take type wasm, only native".into()], ..summary() };
    check_bytes("auction-declined", success(kind::AUCTION, &declined));
    let taken = NodeSummary { taken_trigger: Some("fn.greet".into()), ..declined };
    check_bytes("auction-taken", success(kind::AUCTION, &taken));
    check_bytes("ping-reply", success(kind::PING, &summary()));
    check_bytes("lameduck-reply", success(kind::LAME_DUCK, &LameDuckResponse { node_id: NODE.into(), success: true }));
}

#[test]
fn answers_about_workloads() {
    let workload = WorkloadSummary {
        id: WORKLOAD.into(),
        namespace: "default".into(),
        name: "greet".into(),
        r#type: "v8".into(),
        uptime: "3m12s".into(),
        state: "running".into(),
        restarts: 1,
        triggers: vec!["fn.greet".into()],
        ..WorkloadSummary::default()
    };
    let found = WorkloadPingResponse {
        node_id: NODE.into(),
        target_xkey: XKEY.into(),
        version: "0.1.0".into(),
        tags: tags(),
        uptime: "4m2s".into(),
        running_machines: vec![workload],
        ended: Vec::new(),
    };
    check_bytes("wping-reply", success(kind::PING, &found));
    let runs = MachineWorkload {
        name: "greet".into(),
        description: "says hello".into(),
        runtime: "17ms".into(),
        r#type: "v8".into(),
        hash: DIGEST.into(),
    };
    let machine =
        Machine { id: WORKLOAD.into(), healthy: true, uptime: "3m12s".into(), namespace: "default".into(), workload: runs };
    let info = InfoResponse {
        version: "0.1.0".into(),
        uptime: "4m2s".into(),
        public_xkey: XKEY.into(),
        xkey_signature: "c2lnbmF0dXJl".into(),
        tags: tags(),
        memory: Some(Memory { total: 16_000_000, free: 8_000_000, available: 9_000_000 }),
        machines: vec![machine],
        supported_workload_types: vec!["native".into(), "v8".into(), "wasm".into()],
        ..InfoResponse::default()
    };
    check_bytes("info-reply", success(kind::INFO, &info));
    let quota =
        QuotaSummary { of: "namespace default".into(), what: "memory".into(), unit: "MiB".into(), used: Some(60), most: 100 };
    let more = InfoResponse {
        host: Some(HostUse { at_ms: 5_000, busy_ms: 1_250, processors: 2 }),
        quotas: vec![quota],
        history: Some(HistorySummary { bytes: 4_096, max_bytes: 67_108_864, lost: 0 }),
        ..info
    };
    check_bytes("info-reply-more", success(kind::INFO, &more));
}

#[test]
fn what_was_kept() {
    let request = HistoryRequest {
        after: Some(1_700_000_000_000_001),
        until: Some(1_700_000_000_000_009),
        since_ms: Some(1_700_000_000_000),
        tail: Some(20),
        workload: Some("greet".into()),
        level: Some(Level::Warn),
    };
    check("history", &request);
    check("history-all", &HistoryRequest::default());
    let line = HistoryLine {
        seq: 1_700_000_000_000_002,
        at_ms: 1_700_000_000_123,
        id: WORKLOAD.into(),
        name: "greet".into(),
        level: Level::Error,
        text: "no database".into(),
    };
    let page = HistoryResponse {
        node_id: NODE.into(),
        lines: vec![line],
        until: 1_700_000_000_000_009,
        next: Some(1_700_000_000_000_002),
        damaged: 1,
        is_cut: true,
        ..HistoryResponse::default()
    };
    check_bytes("history-reply-logs", success(kind::HISTORY, &page));
    let event = CloudEvent {
        id: "0b0e7a52-58d2-4c3c-9d8a-1a2b3c4d5e6f".into(),
        namespace: Some("default".into()),
        ..CloudEvent::new(
            event::kind::WORKLOAD_STARTED,
            NODE.to_owned(),
            "2026-01-02T03:04:05.678Z".to_owned(),
            json!({"workload_name": "greet", "workload_id": WORKLOAD, "restarts": 0}),
        )
    };
    let events = vec![HistoryEvent { seq: 1_700_000_000_000_003, at_ms: 1_700_000_000_124, event }];
    let page = HistoryResponse { node_id: NODE.into(), events, until: 1_700_000_000_000_003, ..HistoryResponse::default() };
    check_bytes("history-reply-events", success(kind::HISTORY, &page));
}

#[test]
fn deploy_and_stop() {
    let request = DeployRequest {
        argv: Some(vec!["-v".into()]),
        description: Some("says hello".into()),
        r#type: Some("v8".into()),
        location: Location::new("NEXCLIFILES", "greet"),
        essential: Some(false),
        workload_jwt: Some("eyJ0.eyJq.Zk".into()),
        environment: Some("eGt2MQ==".into()),
        jsdomain: Some(String::new()),
        sender_public_key: Some(XKEY.into()),
        target_node: Some(NODE.into()),
        trigger_subjects: Some(vec!["fn.greet".into()]),
        trigger_connection: Some(connection()),
        host_services: Some(connection()),
        limits: Some(RequestedLimits {
            memory_mib: Some(64),
            call_timeout_ms: Some(500),
            concurrency: Some(8),
            ..RequestedLimits::default()
        }),
        machine_class: Some("large".into()),
        triggers: None,
        settle_ms: None,
        revision: None,
        policy: None,
        isolation: None,
        secrets: None,
        placement: None,
        artifact_domain: None,
        replaces: None,
    };
    check("deploy", &request);
    let placement =
        RequestedPlacement { nodes: vec![NODE.into()], tags: [("region".to_owned(), "eu".to_owned())].into(), spread: true };
    let (placement, artifact_domain, replaces) = (Some(placement), Some("leaf".into()), Some(WORKLOAD.into()));
    check("deploy-replacement", &DeployRequest { placement, artifact_domain, replaces, ..request.clone() });
    check("deploy-isolation", &DeployRequest { isolation: Some("isolate".into()), ..request.clone() });
    let secrets = Some([("PASSWORD".to_owned(), "db".to_owned())].into());
    check("deploy-secrets", &DeployRequest { secrets, ..request.clone() });
    let health = RequestedHealth { probe: "http:80/ok".into(), interval_ms: Some(2_000), timeout_ms: None, threshold: Some(2) };
    let policy = RunPolicy {
        restart: Some("always".into()),
        stop_signal: Some("SIGTERM".into()),
        stop_grace_ms: Some(20_000),
        health: Some(health),
        job: None,
        on_secret_change: Some("restart".into()),
    };
    check("deploy-service", &DeployRequest { policy: Some(policy), ..request.clone() });
    let policy = RunPolicy { job: Some(JobPolicy { retries: Some(3), deadline_ms: Some(60_000) }), ..RunPolicy::default() };
    check("deploy-job", &DeployRequest { policy: Some(policy), ..request });
    let started =
        DeployResponse { started: true, id: WORKLOAD.into(), issuer: ISSUER.into(), name: "greet".into(), exit_code: None };
    check_bytes("deploy-reply", success(kind::RUN, &started));
    let text = Some("eyJ0.eyJq.Zk".to_owned());
    check("stop", &StopRequest { workload_id: Some(WORKLOAD.into()), workload_jwt: text, target_node: Some(NODE.into()) });
    let stopped = StopResponse { stopped: true, id: WORKLOAD.into(), issuer: ISSUER.into(), name: "greet".into() };
    check_bytes("stop-reply", success(kind::STOP, &stopped));
}

#[test]
fn a_failure_of_every_verb_and_code() {
    for (verb, kind, code, text) in [
        ("auction", kind::AUCTION, ErrorCode::BadRequest, "Unable to deserialize auction request"),
        ("ping", kind::PING, ErrorCode::Internal, "the node could not answer"),
        ("info", kind::INFO, ErrorCode::Internal, "the node could not answer"),
        ("deploy", kind::RUN, ErrorCode::Unavailable, "Node is in lame duck mode. Workload deploy request denied"),
        ("deploy-artifact", kind::RUN, ErrorCode::Failed, "Failed to cache workload bytes: object not found"),
        ("deploy-issuer", kind::RUN, ErrorCode::Denied, "invalid workload issuer: A"),
        ("stop", kind::STOP, ErrorCode::NotFound, "No such workload"),
        ("lameduck", kind::LAME_DUCK, ErrorCode::Internal, "the node could not answer"),
    ] {
        check_bytes(&format!("{verb}-failure"), failure(kind, &Failure::new(code, text)));
    }
}

#[test]
fn events_and_log_lines() {
    let event = |kind: &str, namespace: Option<&str>, data: Value| CloudEvent {
        id: "0b0e7a52-58d2-4c3c-9d8a-1a2b3c4d5e6f".into(),
        namespace: namespace.map(str::to_owned),
        ..CloudEvent::new(kind, NODE.to_owned(), "2026-01-02T03:04:05.678Z".to_owned(), data)
    };
    check("event-node_started", &event(event::kind::NODE_STARTED, None, json!({"version": "0.1.0", "id": NODE, "tags": tags()})));
    let data = json!({"workload_name": "greet", "code": 0});
    check("event-workload_deployed", &event(event::kind::WORKLOAD_DEPLOYED, Some("default"), data));
    check("log-line", &LogLine { text: "listening".into(), level: Level::Info, id: WORKLOAD.into(), seq: None });
    let seq = Some(1_700_000_000_000_002);
    check("log-line-kept", &LogLine { text: "listening".into(), level: Level::Info, id: WORKLOAD.into(), seq });
}

#[test]
fn the_conversation_with_an_agent() {
    let agent = WORKLOAD.parse().unwrap();
    check(
        "agent-identity",
        &Identity {
            agent,
            bus: "nats://127.0.0.1:4222".into(),
            certificate: "-----BEGIN CERTIFICATE-----\n".into(),
            jwt: "eyJ0.eyJq.Zk".into(),
            seed: "SUA".into(),
        },
    );
    let handshake = Handshake {
        protocol: nex_protocol::agent::PROTOCOL,
        version: "0.1.0".into(),
        engines: vec![WorkloadType::Native, WorkloadType::V8, WorkloadType::Wasm],
        xkey: XKEY.into(),
        capacity: 1_024,
        message: "jailed".into(),
    };
    check("agent-handshake", &handshake);
    check("agent-welcome", &Welcome { accepted: true, message: String::new() });
    check("agent-refused", &Welcome { accepted: false, message: "nobody waits for this agent".into() });
    check("agent-pong", &Pong { instances: 3, ids: Vec::new() });
    check("agent-done", &Answer::Done);
    check("agent-rejected", &Answer::Rejected { code: RejectCode::Unsupported, message: "no such engine".into() });
    let subscribed =
        DirectTriggers { connection: connection(), queue: "nex.default.greet".into(), subjects: vec!["fn.greet".into()] };
    let deploy = Deploy {
        namespace: "default".parse().unwrap(),
        name: "greet".parse().unwrap(),
        r#type: WorkloadType::V8,
        artifact: "artifact".into(),
        digest: DIGEST.parse::<Digest>().unwrap(),
        is_typescript: false,
        is_shared: false,
        precompiled: None,
        argv: Vec::new(),
        environment: "eGt2MQ==".into(),
        sealed_by: XKEY.into(),
        limits: Limits {
            call_timeout_ms: 5_000,
            memory_bytes: 67_108_864,
            concurrency: 8,
            reply_bytes: 1_048_576,
            ..Limits::default()
        },
        triggers: Some(subscribed),
        health: None,
    };
    check("agent-deploy", &deploy);
    check(
        "agent-deploy-relayed",
        &Deploy {
            precompiled: Some(Precompiled { path: "compiled".into(), digest: deploy.digest }),
            triggers: None,
            ..deploy.clone()
        },
    );
    check("agent-undeploy", &Undeploy { grace_ms: 5_000, signal: None });
}

#[test]
fn agents_that_functions_share() {
    let deploy: Deploy = serde_json::from_str(include_str!("agent-deploy.json")).unwrap();
    check("agent-deploy-shared", &Deploy { is_shared: true, ..deploy });
    check("agent-ping-ids", &Ping { ids: true });
    check("agent-pong-ids", &Pong { instances: 1, ids: vec![WORKLOAD.parse().unwrap()] });
}

#[test]
fn health_and_stop_signals_of_services() {
    let deploy: Deploy = serde_json::from_str(include_str!("agent-deploy.json")).unwrap();
    let health = HealthCheck::new("http:80/ok".parse().unwrap(), None, None, 3);
    let service = Deploy { r#type: WorkloadType::Native, triggers: None, health: Some(health), ..deploy };
    check("agent-deploy-checked", &service);
    check("agent-undeploy-signal", &Undeploy { grace_ms: 5_000, signal: "SIGQUIT".parse().ok() });
    check("agent-event-health", &AgentEvent::Health { healthy: false, message: "tcp:80 failed 3 times: nobody listens".into() });
}

#[test]
fn what_an_agent_reports() {
    check("agent-logs", &Logs { lines: vec![LogEntry { stderr: true, text: "careful".into() }], dropped: 3 });
    check("agent-event-exited", &AgentEvent::Exited { code: -1, message: "killed by SIGKILL".into() });
    check("agent-event-stopped", &AgentEvent::Stopped);
    check("agent-event-stuck", &AgentEvent::Stuck { message: "a call does not end".into() });
    let calls = AgentEvent::Calls {
        trigger: "fn.greet".into(),
        succeeded: 2,
        failed: 1,
        elapsed_nanos: 90_000,
        errors: vec!["it took longer than 5 s".into()],
    };
    check("agent-event-calls", &calls);
    check("agent-event-ack", &EventAck { sequence: 7 });
}
