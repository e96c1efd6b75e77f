//! How a node with microVMs starts: with the configuration of the documents, with an image of one's own, and where it cannot.

use std::path::Path;

use nex_testkit::{dist_binary, guest, machines, skip};
use serde_json::json;

use crate::guests::{
    Told, configure, deploy_script, field, host_state, listen, monitors, obstacle, on_a_host, resources, run, userland, workload,
    world,
};
use crate::leftovers::{Watch, of_guests};
use crate::upgrade::older;
use crate::world::World;

const CNI_PLUGINS: &str = "/usr/lib/cni";

/// The configuration that the documents start a node with.
fn simple(world: &World) -> String {
    let config = json!({
        "default_resource_dir": resources(),
        "machine_pool_size": 1,
        "internal_node_host": "192.168.127.1",
        "cni": { "network_name": "fcnet", "interface_name": "veth0", "subnet": "192.168.127.0/24" },
        "machine_template": { "vcpu_count": 1, "memsize_mib": 256 },
        "workload_types": ["native", "v8", "wasm"],
        "tags": { "simple": "true" },
    });
    configure(world, "simple.json", config)
}

#[test]
fn the_configuration_of_the_documents_starts_a_node_that_says_what_they_show() {
    const NAME: &str = "the_configuration_of_the_documents_starts_a_node_that_says_what_they_show";
    if let Some(why) = obstacle() {
        skip!(NAME, why);
    }
    if let Some(missing) = ["ptp", "host-local"].iter().find(|plugin| !Path::new(CNI_PLUGINS).join(plugin).is_file()) {
        skip!(NAME, format!("no CNI plug-in {missing} in {CNI_PLUGINS}"));
    }
    on_a_host(|| {
        let mut world = World::with_nats();
        world.unset("NEX_RESOURCE_DIR");
        let before = host_state();
        let node = world.node_up(&["--config", &simple(&world), "--sandbox", &machines::monitor()]);
        node.waits_for("Received agent handshake");
        says_what_the_documents_show(&world, &node.err());
        let mut watch = Watch::new(node.pid());
        watch.look();
        assert_eq!(world.nodes()[0]["tags"]["simple"], "true");

        // The service of the documents, which the node's user calls by his own NATS.
        let service = dist_binary("echo-service");
        let nats_url = format!("NATS_URL=nats://host.nex.internal:{}", world.port());
        world.nex(&["devrun", service.to_str().unwrap(), &nats_url]).expect(0);
        world.eventually_answers("svc.echo");
        let module = world.file("echo.wasm", guest::assemble(guest::ECHO_WAT));
        world.nex(&["devrun", &module, "--trigger_subject", "fn.wasm"]).expect(0);
        world.nex(&["call", "fn.wasm", "hello"]).expect(0).says(&["hello"]);
        watch.look();
        let id = world.node_id();
        assert!(!of_guests(&id, &world.path("state")).is_empty());
        assert!(host_state() != before && monitors(&world.path("state")).len() >= 2);

        node.interrupt().expect(0);
        assert_eq!(watch.left(&world.path("state")), Vec::<String>::new());
        assert_eq!(of_guests(&id, &world.path("state")), Vec::<String>::new());
        assert_eq!(monitors(&world.path("state")), []);
        assert_eq!(host_state(), before);
    });
}

fn says_what_the_documents_show(world: &World, log: &str) {
    let loaded = format!("INFO Loaded node configuration from '{}'", world.text_path("simple.json"));
    in_this_order(log, &[&loaded, "INFO Virtual machine manager starting"]);
    in_this_order(
        log,
        &[
            &format!("INFO Established node NATS connection to: {}", world.url()),
            "INFO Internal NATS server started client_url=\"tls://192.168.127.1:",
            "INFO Use this key as the recipient for encrypted run requests public_xkey=X",
            "INFO NATS execution engine awaiting commands id=N",
            "INFO Machine started gateway=192.168.127.1 hosttap=tap",
            "INFO Adding new VM to warm pool ip=192.168.127.",
            "INFO Received agent handshake message=\"Host-supplied metadata\" ",
        ],
    );
    let started = |name| field(log, "Machine started", name)[0].to_owned();
    assert_eq!((started("gateway"), started("nats_host")), ("192.168.127.1".into(), "192.168.127.1".into()));
    assert_eq!((started("netmask"), started("hosttap").is_empty()), ("ffffff00".into(), false));
    assert!(started("ip").starts_with("192.168.127."), "{log}");
    assert_eq!(
        format!("tls://192.168.127.1:{}", started("nats_port")),
        field(log, "Internal NATS server started", "client_url")[0]
    );
    let vmid = started("vmid");
    assert_eq!(field(log, "Adding new VM to warm pool", "vmid")[0], vmid);
    assert_eq!(field(log, "Adding new VM to warm pool", "ip")[0], started("ip"));
    assert!(field(log, "Received agent handshake", "vmid").contains(&vmid.as_str()), "{log}");
}

#[track_caller]
fn in_this_order(log: &str, lines: &[&str]) {
    let mut rest = log;
    for line in lines {
        rest = rest.split_once(line).unwrap_or_else(|| panic!("'{line}' is not in its place in {log}")).1;
    }
}

#[test]
fn an_image_of_ones_own_is_what_guests_see_and_another_versions_agent_in_it_is_warned_of() {
    const NAME: &str = "an_image_of_ones_own_is_what_guests_see_and_another_versions_agent_in_it_is_warned_of";
    if let Some(why) = obstacle() {
        skip!(NAME, why);
    }
    on_a_host(|| {
        let world = world();
        world.file("userland/etc/motd", "this is an image of my own");
        let agent = world.file("older-agent", older(&std::fs::read(dist_binary("nex-agent")).unwrap()));
        world.nex(&["rootfs", &userland(&world), "-o", "own.img", "--agent", &agent]).expect(0).says(&["wrote own.img"]);
        configure(&world, "config.json", json!({ "rootfs_filepath": world.path("own.img"), "machine_pool_size": 1 }));
        let node = world.node_up(&[]);
        let log = node.err();
        assert!(log.contains("the root image holds another version's agent; next: rebuild it with 'nex rootfs'"), "{log}");
        let logs = listen(&world);
        deploy_script(&world, "reader", "$b cat /etc/motd\necho\necho done\nexec $b sleep 1000\n", &[]);
        assert_eq!(Told::wait(&world, &logs, "reader").all("this"), ["this is an image of my own"]);
        assert!(workload(&world, "reader")["restarts"].is_null());
        node.interrupt().expect(0);
    });
}

#[test]
fn a_monitor_that_is_not_there_is_refused_or_made_up_for_by_jailed_processes_and_said() {
    if let Some(why) = obstacle() {
        skip!("a_monitor_that_is_not_there_is_refused_or_made_up_for_by_jailed_processes_and_said", why);
    }
    on_a_host(|| {
        let mut world = world();
        // Nobody finds a monitor here, and everybody else.
        let empty = world.path("bin");
        std::fs::create_dir(&empty).unwrap();
        world.set("PATH", empty.to_str().unwrap());
        let before = host_state();
        for (kind, why) in [("firecracker", "firecracker: the program was not found"), ("qemu", "qemu: the program qemu-system-")]
        {
            let ended = world.nex(&["node", "up", "--sandbox", kind]).expect(1);
            ended.says(&["no microVM works on this host", why, "next: run 'nex node preflight'", "\"sandbox\": \"auto\""]);
        }
        let ended = world.nex(&["node", "up", "--sandbox", "qemu", "--resource-dir", "/nowhere"]).expect(1);
        ended.says(&["there is no kernel at /nowhere/vmlinux"]);
        world.file("config.json", r#"{"sandbox": "qemu", "no_sandbox": true}"#);
        world.unset("NEX_SANDBOX");
        world.nex(&["node", "up"]).expect(1).says(&["sandbox 'qemu' and no_sandbox contradict each other"]);

        world.file("config.json", r#"{"sandbox": "auto"}"#);
        let node = world.node_up(&[]);
        let log = node.err();
        let reasons = ["firecracker: the program was not found", "qemu: the program qemu-system-"];
        for reason in reasons {
            assert!(log.contains(reason), "{log}");
        }
        assert!(log.contains("workloads run in jailed processes, not in microVMs"), "{log}");
        let tags = &world.nodes()[0]["tags"];
        assert_eq!((&tags["nex.sandbox"], &tags["nex.unsafe"]), (&"process".into(), &"true".into()), "{tags}");
        assert!(reasons.iter().all(|reason| tags["nex.sandbox.reason"].as_str().unwrap().contains(reason)), "{tags}");
        node.interrupt().expect(0);
        assert_eq!(host_state(), before);
        assert_eq!(run("ip", &["-o", "link"]).lines().count(), 1);
    });
}

#[test]
fn where_firecracker_cannot_boot_a_machine_auto_takes_jailed_processes_and_says_why() {
    const NAME: &str = "where_firecracker_cannot_boot_a_machine_auto_takes_jailed_processes_and_says_why";
    if let Some(why) = obstacle() {
        skip!(NAME, why);
    }
    let Some(firecracker) = std::env::var_os("NEX_FIRECRACKER") else {
        skip!(NAME, "no firecracker: NEX_FIRECRACKER is not set")
    };
    on_a_host(move || {
        let mut world = world();
        world.set("NEX_SANDBOX", "auto");
        let bin = Path::new(&firecracker).parent().unwrap();
        world.file("config.json", json!({ "bin_path": [bin], "machine_pool_size": 1 }).to_string());
        let node = world.node_up(&[]);
        let tags = &world.nodes()[0]["tags"];
        if tags["nex.sandbox"] == "firecracker" {
            assert_eq!(tags["nex.sandbox.accel"], "kvm");
        } else {
            assert!(node.err().contains("not used: firecracker (kvm, "), "{}", node.err());
            assert!(["qemu", "process"].iter().any(|kind| tags["nex.sandbox"] == *kind), "{tags}");
        }
        node.interrupt().expect(0);
    });
}
