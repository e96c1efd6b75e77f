//! What a node refuses to run, and in which words.

use nex_client::deploy::Deployment;
use nex_protocol::claims::{Body, Claims, sign};
use nex_protocol::deploy::{DeployRequest, DeployResponse, RequestedLimits, WorkloadType};
use nex_protocol::digest::Digest;
use nex_protocol::envelope::{self, ErrorCode, Failure, ReplyError};
use nex_protocol::seal::{Environment, seal};
use nex_testkit::guest;
use nkeys::{KeyPair, XKey};
use serde_json::{Value, json};

use crate::world::World;

const GREET: &[u8] = guest::GREET_MJS.as_bytes();

fn now() -> i64 {
    nex_node::clock::unix_seconds()
}

impl World {
    fn claims(&self, name: &str) -> Claims {
        Claims::to_start(name, &self.keys.issuer, &Digest::of(GREET), now(), 60)
    }

    /// A request that is in order: the function `greet`, whose artifact was uploaded under its name.
    fn request(&self, claims: &Claims, signer: &KeyPair) -> DeployRequest {
        let environment = seal(&Environment::new(), &self.keys.sender, &self.target().xkey).unwrap();
        DeployRequest {
            r#type: Some("v8".into()),
            location: Some("nats://NEXCLIFILES/greet".parse().unwrap()),
            workload_jwt: Some(sign(claims, signer).unwrap()),
            environment: Some(environment),
            sender_public_key: Some(self.keys.sender.public_key()),
            trigger_subjects: Some(vec!["greet".into()]),
            ..DeployRequest::default()
        }
    }

    fn fresh_request(&self) -> DeployRequest {
        self.request(&self.claims("greet"), &self.keys.issuer)
    }

    async fn send(&self, request: &DeployRequest) -> Result<DeployResponse, Failure> {
        let subject = format!("$NEX.DEPLOY.default.{}", self.target().node);
        let answer = self.client.nats().request(subject, serde_json::to_vec(request).unwrap().into()).await.unwrap();
        match envelope::open(envelope::kind::RUN, &answer.payload) {
            Err(ReplyError::Failed(failure)) => Err(failure),
            other => Ok(other.unwrap()),
        }
    }

    async fn expect(&self, request: &DeployRequest, code: ErrorCode, text: &str) {
        let failure = self.send(request).await.unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
        assert!(failure.message.contains(text), "expected '{text}' in '{failure}'");
    }

    fn cached_artifacts(&self) -> usize {
        let files = std::fs::read_dir(self.state().join("artifacts")).unwrap().flatten();
        files.filter(|file| file.file_name().len() == 64).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn types_triggers_and_environments_are_checked_in_the_words_of_0_2_7() {
    let mut world =
        World::start(json!({"workload_types": ["native", "v8"], "deny_trigger_subjects": ["secret.*.>", "a.b"]})).await;
    world.upload("greet", GREET).await;
    let good = || world.fresh_request();
    let with_type = |kind: &str| DeployRequest { r#type: Some(kind.into()), ..good() };
    for kind in ["wasm", "oci", "docker", "Native", ""] {
        let text = format!("Unsupported workload type on this node: {kind}");
        world.expect(&with_type(kind), ErrorCode::Denied, &text).await;
    }
    world
        .expect(&with_type("native"), ErrorCode::BadRequest, "Unsupported workload type for trigger subject registration: native")
        .await;
    let with_triggers = |triggers: &[&str]| DeployRequest {
        trigger_subjects: Some(triggers.iter().map(|it| (*it).to_owned()).collect()),
        ..good()
    };
    for trigger in ["secret.x.y", "secret.>", ">", "*.x.y", "a.*", "a.b", "$NEX.PING", "$SYS.REQ.>", "*.API.>", "*.b"] {
        let text = format!("The trigger subject {trigger} overlaps with subject(s) in this node's deny list");
        world.expect(&with_triggers(&["fine", trigger]), ErrorCode::Denied, &text).await;
    }
    for trigger in ["", "a..b", "a b", ".a", "a.", "a.>.b", "a.b>", "a\r\nPUB x 0"] {
        world.expect(&with_triggers(&[trigger]), ErrorCode::BadRequest, "is not a subject").await;
    }
    world.expect(&with_triggers(&[]), ErrorCode::BadRequest, "at least one trigger subject is required").await;
    world.expect(&DeployRequest { trigger_subjects: None, ..good() }, ErrorCode::BadRequest, "at least one trigger").await;

    let decrypt = "Failed to decrypt environment for deploy request: ";
    let other_node = XKey::new().public_key();
    let secret = Environment::from([("A".to_owned(), "hunter2".to_owned())]);
    let for_another = seal(&secret, &world.keys.sender, &other_node).unwrap();
    for (environment, sender) in [
        (Some(for_another), good().sender_public_key),
        (good().environment, None),
        (good().environment, Some(other_node)),
        (good().environment, Some("X".repeat(56))),
        (Some("AAAA".into()), good().sender_public_key),
        (Some("not base64!".into()), good().sender_public_key),
    ] {
        let request = DeployRequest { environment, sender_public_key: sender, ..good() };
        world.expect(&request, ErrorCode::BadRequest, decrypt).await;
    }
    let nul = Environment::from([("A".to_owned(), "x\0y".to_owned())]);
    let environment = seal(&nul, &world.keys.sender, &world.target().xkey).unwrap();
    world.expect(&DeployRequest { environment: Some(environment), ..good() }, ErrorCode::BadRequest, decrypt).await;
    assert!(world.send(&good()).await.unwrap().started);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_token_that_is_signed_fresh_and_named_well_deploys_and_only_once() {
    let mut world = World::start(json!({})).await;
    world.upload("greet", GREET).await;
    let token = |token: &str| DeployRequest { workload_jwt: Some(token.into()), ..world.fresh_request() };
    let undecodable = "Invalid deploy request: could not decode workload JWT: ";
    let good = sign(&world.claims("greet"), &world.keys.issuer).unwrap();
    let (header_and_body, signature) = good.rsplit_once('.').unwrap();
    for bad in ["", "a.b.c", "a.b", &format!("{header_and_body}."), header_and_body, &format!("{good}.x"), &"a".repeat(20_000)] {
        world.expect(&token(bad), ErrorCode::BadRequest, undecodable).await;
    }
    let unsigned = good.replacen(good.split('.').next().unwrap(), "eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0", 1);
    world.expect(&token(&unsigned), ErrorCode::BadRequest, undecodable).await;
    let (_, other) = sign(&world.claims("other"), &world.keys.issuer)
        .unwrap()
        .rsplit_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert_ne!(other, signature);
    world
        .expect(&token(&format!("{header_and_body}.{other}")), ErrorCode::BadRequest, "signature is not that of its issuer")
        .await;
    let by_another = world.request(&world.claims("greet"), &KeyPair::new_account());
    world.expect(&by_another, ErrorCode::BadRequest, "signature is not that of its issuer").await;
    world.expect(&DeployRequest { workload_jwt: None, ..world.fresh_request() }, ErrorCode::BadRequest, undecodable).await;

    let claims = |change: fn(&mut Claims)| {
        let mut claims = world.claims("greet");
        change(&mut claims);
        world.request(&claims, &world.keys.issuer)
    };
    let invalid = "Invalid deploy request: standard claims within JWT are not valid";
    for request in [
        claims(|it| it.exp = Some(now() - 1)),
        claims(|it| it.nbf = Some(now() + 600)),
        claims(|it| it.iat = now() + 600),
        claims(|it| (it.exp, it.iat) = (None, now() - 7_200)),
        claims(|it| it.exp = Some(now() + 365 * 86_400)),
    ] {
        world.expect(&request, ErrorCode::Denied, invalid).await;
    }
    world.expect(&claims(|it| it.jti = String::new()), ErrorCode::BadRequest, invalid).await;
    for name in ["", "a.b", "a b", "../x", "ü", ">"] {
        let request = world.request(&world.claims(name), &world.keys.issuer);
        let text = format!("workload name claim ('{name}') does not match requirements (^[a-zA-Z0-9_-]+$)");
        world.expect(&request, ErrorCode::BadRequest, &text).await;
    }
    let once = world.fresh_request();
    let started = world.send(&once).await.unwrap();
    assert_eq!(world.send(&once).await.unwrap(), started, "asked again, it is the same one");
    let other = DeployRequest { description: Some("another".into()), ..once };
    world.expect(&other, ErrorCode::Denied, "this workload JWT was used before").await;
    // A client of 0.2.7 sends no expiry and a placeholder for the digest.
    let old =
        claims(|it| (it.exp, it.nats) = (None, Body { hash: Some("sha256:placeholder".into()), version: 2, ..Body::default() }));
    assert!(world.send(&old).await.unwrap().started);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_token_stays_spent_when_the_node_starts_again() {
    let mut world = World::start(json!({})).await;
    world.upload("greet", GREET).await;
    let once = world.fresh_request();
    let started = world.send(&once).await.unwrap();
    world.stop_workload(&started).await;
    world.stop().await;
    world.start_node().await;
    world.expect(&once, ErrorCode::Denied, "this workload JWT was used before").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_and_digests_can_be_demanded() {
    let trusted = KeyPair::new_account();
    let config = json!({"valid_issuers": [trusted.public_key()], "require_digest": true});
    let mut world = World::start(config).await;
    world.upload("greet", GREET).await;
    let stranger = format!("invalid workload issuer: {}", world.keys.issuer.public_key());
    world.expect(&world.fresh_request(), ErrorCode::Denied, &stranger).await;

    let claims = |hash: Option<String>| {
        let mut claims = Claims::to_start("greet", &trusted, &Digest::of(GREET), now(), 60);
        claims.nats.hash = hash;
        world.request(&claims, &trusted)
    };
    for hash in [None, Some("hash goes here".to_owned())] {
        world.expect(&claims(hash), ErrorCode::Denied, "demands claims with the artifact's SHA-256").await;
    }
    let wrong = claims(Some(Digest::of(b"other").to_string()));
    world.expect(&wrong, ErrorCode::Denied, "it was changed after signing").await;
    assert_eq!(world.cached_artifacts(), 0, "refused before a byte was fetched");
    assert!(world.send(&claims(Some(Digest::of(GREET).to_string()))).await.unwrap().started);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_refuses_before_it_fetches_anything_and_has_room_again_afterwards() {
    let limits = json!({"node_limits": {"max_workloads": 2, "max_workload_bytes": 3_000, "max_total_bytes": 4_000}});
    let mut world = World::start(limits).await;
    let padded = |bytes: usize| format!("{}{}", guest::GREET_MJS, " ".repeat(bytes - GREET.len())).into_bytes();
    let prepare = async |name: &str, bytes: usize| world.prepare(name, WorkloadType::V8, &padded(bytes)).await;
    let text = async |deployment: &Deployment| world.refused(deployment).await;

    let large = prepare("large", 3_001).await;
    assert_eq!(text(&large).await, Failure::new(ErrorCode::Denied, "Workload file size would exceed node limitations"));
    assert_eq!(world.cached_artifacts(), 0, "nothing was fetched");
    let first = world.deploy(&prepare("first", 2_500).await).await;
    let second = prepare("second", 2_000).await;
    let total = Failure::new(ErrorCode::Unavailable, "Workload file size would exceed node total limitations");
    assert_eq!(text(&second).await, total);
    assert_eq!(world.cached_artifacts(), 1, "nothing was fetched");
    let small = world.deploy(&prepare("small", 1_000).await).await;
    let full = Failure::new(ErrorCode::Unavailable, "Node is at maximum workload limit. Deploy request denied");
    assert_eq!(text(&second).await, full);
    let why: Value = world.ask("$NEX.AUCTION", r#"{"explain":true}"#).await;
    assert_eq!(why["data"]["declined"], json!(["it runs its maximum of 2 workloads"]));

    world.stop_workload(&first).await;
    world.deploy(&second).await;
    world.stop_workload(&small).await;
    assert_eq!(text(&prepare("third", 2_500).await).await, total);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_asked_for_are_bounded_by_those_of_the_node() {
    let mut world = World::start(json!({"workload_limits": {"max_memory_mib": 100, "max_call_timeout_ms": 9_000}})).await;
    let mut deployment = world.prepare("greet", WorkloadType::V8, GREET).await;
    for (memory, timeout, word) in [
        (Some(101), None, "1 to 100 MiB"),
        (Some(0), None, "1 to 100 MiB"),
        (Some(u64::MAX), None, "1 to 100 MiB"),
        (None, Some(9_001), "1 to 9000 ms"),
        (None, Some(0), "1 to 9000 ms"),
    ] {
        (deployment.limits.memory_mib, deployment.limits.call_timeout_ms) = (memory, timeout);
        let failure = world.refused(&deployment).await;
        assert!(failure.code == ErrorCode::Denied && failure.message.contains(word), "{failure}");
    }
    (deployment.limits.memory_mib, deployment.limits.call_timeout_ms) = (Some(100), Some(9_000));
    world.deploy(&deployment).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_calls_are_bounded_by_those_of_the_node_and_named() {
    let own = json!({"payload_bytes": 1_000, "reply_bytes": 2_000, "host_calls": 30, "log_bytes": 4_000, "cpu_ms": 50});
    let mut world = World::start(json!({"workload_limits": own})).await;
    let mut deployment = world.prepare("greet", WorkloadType::V8, GREET).await;
    for (asked, word) in [
        (
            RequestedLimits { payload_bytes: Some(1_001), ..RequestedLimits::default() },
            "payload_bytes of a workload on this node may be 1 to 1000",
        ),
        (
            RequestedLimits { reply_bytes: Some(2_001), ..RequestedLimits::default() },
            "reply_bytes of a workload on this node may be 1 to 2000",
        ),
        (
            RequestedLimits { host_calls: Some(u64::MAX), ..RequestedLimits::default() },
            "host_calls of a workload on this node may be 1 to 30",
        ),
        (
            RequestedLimits { log_bytes: Some(0), ..RequestedLimits::default() },
            "log_bytes of a workload on this node may be 1 to 4000",
        ),
        (RequestedLimits { cpu_ms: Some(51), ..RequestedLimits::default() }, "raise workload_limits.cpu_ms"),
    ] {
        deployment.limits = asked;
        let failure = world.refused(&deployment).await;
        assert!(failure.code == ErrorCode::Denied && failure.message.contains(word), "{failure}");
    }
    deployment.limits = RequestedLimits { reply_bytes: Some(2_000), host_calls: Some(1), ..RequestedLimits::default() };
    world.deploy(&deployment).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lame_duck_says_so_once_and_takes_nothing_more() {
    let mut world = World::start(json!({})).await;
    let deployment = world.prepare("greet", WorkloadType::V8, GREET).await;
    world.deploy(&deployment).await;
    let node = world.target().node;
    for _ in 0..3 {
        assert!(world.client.lame_duck(&node).await.unwrap().success);
    }
    let refusal = "Node is in lame duck mode. Workload deploy request denied";
    assert_eq!(world.refused(&deployment).await, Failure::new(ErrorCode::Unavailable, refusal));
    assert_eq!(world.ask("$NEX.PING", "").await["data"]["tags"]["nex.lameduck"], "true");
    let why: Value = world.ask("$NEX.AUCTION", r#"{"explain":true}"#).await;
    assert_eq!(why["data"]["declined"], json!(["it is in lame duck mode"]));
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"", "what runs goes on");
    world.until("the event is told", |it| !it.events("node_entered_lameduck").is_empty()).await;
    world.stop().await;
    world.until("the node said goodbye", |it| it.events("node_stopped").len() == 1).await;
    assert_eq!(world.events("node_entered_lameduck").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_object_or_jetstream_is_named() {
    let mut world = World::start(json!({})).await;
    world.upload("greet", GREET).await;
    let at = |location: &str| DeployRequest { location: Some(location.parse().unwrap()), ..world.fresh_request() };
    for (location, text) in [
        ("nats://NOWHERE/greet", "Failed to cache workload bytes: no bucket for nats://NOWHERE/greet"),
        ("nats://NEXCLIFILES/none", "Failed to cache workload bytes: no object nats://NEXCLIFILES/none"),
    ] {
        world.expect(&at(location), ErrorCode::Failed, text).await;
    }
    world.expect(&DeployRequest { location: None, ..world.fresh_request() }, ErrorCode::BadRequest, "no artifact location").await;
    let elsewhere = DeployRequest { jsdomain: Some("elsewhere".into()), ..world.fresh_request() };
    world.expect(&elsewhere, ErrorCode::Failed, "is JetStream enabled for this node's account?").await;
    let empty = Deployment::new("empty".parse().unwrap(), WorkloadType::V8, world.upload("empty", b"").await);
    let failure = world.refused(&empty).await;
    assert!(failure.message.contains("nats://NEXCLIFILES/empty is empty"), "{failure}");
    world.stop().await;
}
