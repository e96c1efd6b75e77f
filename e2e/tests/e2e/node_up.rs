//! `nex node up`: a node on a NATS that is there, with a configuration file.

use async_nats::jetstream::object_store;
use nex_testkit::guest;
use serde_json::{Value, json};

use crate::world::World;

/// A subnet no other test's node takes by itself: those choose from 192.168.127.0/24 upwards.
const SUBNET: &str = "192.168.91.0/24";
const GATEWAY: &str = "192.168.91.1";

/// Every field of 0.2.7, with the names of the artifacts' bucket and of the pid file.
fn all_fields(world: &World) -> Value {
    json!({
        "agent_handshake_timeout_ms": 4000,
        "agent_ping_timeout_ms": 700,
        "autostart": { "workloads": [{
            "name": "starter", "namespace": "default", "argv": [], "description": "started with the node", "essential": true,
            "type": "v8", "location": "nats://STARTERS/echo", "jsdomain": "", "environment": {"GREETING": "hello"},
            "trigger_subjects": ["fn.starter"],
        }]},
        "bin_path": ["/usr/local/bin"],
        "cni": { "network_name": "fcnet", "interface_name": "veth0", "subnet": SUBNET, "bin_path": ["/opt/cni/bin"] },
        "default_resource_dir": "/tmp/nex",
        "host_services": { "nats_url": world.url(), "nats_user_jwt": "", "nats_user_seed": "", "services": {
            "kv": { "enabled": true, "config": { "bucket_name": "mine", "max_bytes": 524_288 } },
            "messaging": { "enabled": true, "config": {} },
            "objectstore": { "enabled": false, "config": null },
            "http": { "enabled": true },
        }},
        "internal_node_host": GATEWAY,
        "internal_node_port": null,
        "kernel_filepath": "/tmp/nex/vmlinux",
        "rootfs_filepath": "/tmp/nex/rootfs.ext4",
        "machine_pool_size": 1,
        "machine_template": { "vcpu_count": 1, "memsize_mib": 256 },
        "no_sandbox": true,
        "node_limits": { "max_workloads": 5, "max_total_bytes": 0, "max_workload_bytes": 10_000_000 },
        "otlp_exporter_url": "127.0.0.1:14532",
        "otel_metrics": true,
        "otel_metrics_port": 8085,
        "otel_metrics_exporter": "file",
        "otel_traces": false,
        "otel_traces_exporter": "file",
        "pid_filepath": world.text_path("nex.pid"),
        "preserve_network": true,
        "rate_limiters": { "bandwidth": { "one_time_burst": 0, "refill_time": 0, "size": 0 } },
        "tags": { "simple": "true", "site": "file" },
        "valid_issuers": [],
        "workload_types": ["native", "v8", "wasm"],
        "deny_trigger_subjects": ["secret.>"],
    })
}

fn upload(world: &World, bucket: &str, key: &str, content: &str) {
    world.block_on(async {
        let jetstream = async_nats::jetstream::new(async_nats::connect(world.url()).await.unwrap());
        let config = object_store::Config { bucket: bucket.to_owned(), ..Default::default() };
        jetstream.create_object_store(config).await.unwrap().put(key, &mut content.as_bytes()).await.unwrap();
    });
}

#[test]
fn a_configuration_with_every_field_of_0_2_7_starts_a_node_and_what_has_no_effect_is_said() {
    let world = World::with_nats();
    upload(&world, "STARTERS", "echo", "(s, p) => env.GREETING + ' ' + new TextDecoder().decode(p)");
    let config = world.file("config.json", all_fields(&world).to_string());
    // It is found where one stands.
    let node = world.node_up(&[]);
    let log = node.err();
    assert!(log.contains("otel_metrics has no effect"), "{log}");
    assert!(!log.contains("Virtual machine manager"), "no_sandbox is what it says: {log}");
    assert!(log.contains(&format!("Loaded node configuration from '{}'", "config.json")), "{log}");
    assert_eq!(std::fs::read_to_string(world.path("nex.pid")).unwrap(), node.pid().to_string());
    let tags = world.nodes()[0]["tags"].clone();
    for (name, value) in [("simple", "true"), ("site", "file"), ("nex.os", "linux"), ("nex.unsafe", "true")] {
        assert_eq!(tags[name], value, "{tags}");
    }

    world.eventually_answers("fn.starter");
    world.nex(&["call", "fn.starter", "world"]).expect(0).says(&["hello world"]);
    let script = world.file("echo.js", guest::ECHO_JS);
    let denied = world.nex(&["devrun", &script, "--trigger_subject", "secret.door"]);
    denied.expect(3).says(&["The trigger subject secret.door overlaps with subject(s) in this node's deny list"]);

    // A pid file of a process that lives is in the way, of a node with another state directory too.
    let other = ["node", "up", "--config", &config, "--state-dir", "other"];
    let running = format!("node process already running; pid: {}", node.pid());
    world.nex(&other).expect(1).says(&[&running, "next: stop it, or name another pid_filepath"]);
    node.interrupt().expect(0);
    assert!(!world.path("nex.pid").exists());
}

#[test]
fn a_configuration_that_cannot_be_used_names_the_field_and_the_file() {
    let world = World::new();
    let config = world.file("node.json", r#"{"machine_poolsize": 3}"#);
    let ended = world.nex(&["node", "up", "--config", &config]).expect(1);
    ended.says(&[&config, "unknown field `machine_poolsize`", "Did you mean 'machine_pool_size'?"]);
    let config = world.file("node.json", r#"{"machine_pool_size": 0, "valid_issuers": ["me"], "workload_types": ["docker"]}"#);
    let ended = world.nex(&["node", "up", "--config", &config]).expect(1);
    ended.says(&["machine pool size must be >= 1", "'me' is not a public nkey", "docker"]);
    let missing = world.text_path("missing.json");
    world.nex(&["node", "up", "--config", &missing]).expect(1).says(&[&missing, "preflight --init"]);
    let broken = world.file("node.json", "{");
    world.nex(&["up", "--config", &broken]).expect(1).says(&[&broken, "not valid"]);
}

#[test]
fn variables_stand_over_the_file_and_flags_over_variables() {
    let mut world = World::with_nats();
    world.file(
        "config.json",
        r#"{"no_sandbox": true, "tags": {"site": "file", "rack": "file", "row": "file"}, "workload_types": ["native"]}"#,
    );
    world.set("NEX_TAGS", "site=variable,rack=variable");
    world.set("NEX_NEXUS", "variable");
    world.set("NEX_WORKLOAD_TYPES", "wasm");
    let node = world.node_up(&[]);
    let seen = world.nodes()[0].clone();
    let tag = |seen: &Value, name: &str| seen["tags"][name].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (tag(&seen, "site"), tag(&seen, "rack"), tag(&seen, "row")),
        ("variable".into(), "variable".into(), "file".into())
    );
    assert_eq!(seen["nexus"], "variable");
    node.interrupt().expect(0);

    let node = world.node_up(&["--tag", "site=flag", "--nexus", "flag", "--workload-types", "v8,native", "--pool-size", "2"]);
    let seen = world.nodes()[0].clone();
    assert_eq!((tag(&seen, "site"), tag(&seen, "row")), ("flag".into(), "file".into()));
    assert_eq!(seen["nexus"], "flag");
    let info = world.nex(&["node", "info", seen["node_id"].as_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(info["supported_workload_types"], json!(["v8", "native"]), "{info}");
    world.eventually("two agents are warm", || world.nodes()[0]["warm_agents"] == 2);
    node.interrupt().expect(0);
}

#[test]
fn without_nats_or_with_senseless_flags_no_node_starts() {
    let world = World::new();
    let ended = world.nex(&["node", "up"]).expect(6);
    ended.says(&["failed to initialize node", "failed to connect to NATS server", &world.url(), "next: start one"]);
    world.nex(&["node", "up", "--tag", "novalue"]).expect(2).says(&["'novalue' is no tag", "key=value"]);
    world.nex(&["node", "up", "--agent", "/no/such/agent"]).expect(1).says(&["/no/such/agent", "next: "]);
    world.nex(&["node", "up", "--nats-server", "/no/such/server"]).expect(1).says(&["/no/such/server", "next: "]);
    assert_eq!(world.processes(), []);
}

#[test]
fn telemetry_flags_of_0_2_7_are_taken_and_have_no_effect() {
    let world = World::with_nats();
    let flags = ["--metrics", "--metrics_port", "8085", "--otel_metrics_exporter", "file", "--traces"];
    let node = world.node_up(&flags);
    node.waits_for("telemetry flags have no effect");
    node.interrupt().expect(0);
}

#[test]
fn the_log_goes_where_and_how_it_is_asked_for() {
    let mut world = World::with_nats();
    let node = world.start(&["node", "up", "--logger", "file", "--logjson", "--timeformat", "RFC3339", "--pool-size", "1"]);
    node.waits_for("is ready");
    node.interrupt().expect(0).says_not("INFO");
    let log = std::fs::read_to_string(world.path("nex.log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["fields"]["message"] == "node stopped"), "{log}");
    assert!(lines.iter().all(|line| line["timestamp"].as_str().unwrap().contains('T')), "{log}");
    assert_eq!(std::fs::read_to_string(world.path("nex.err")).unwrap(), "", "errors only");

    world.set("NEX_LOGLEVEL", "none");
    let node = world.node_up(&[]);
    let said = node.interrupt().expect(0).stderr;
    assert_eq!(said.lines().count(), 1, "only that it is ready: {said}");
}
