//! Who may, who did, who is asking: issuers and operators of a node, `ps` across namespaces, `whoami`.

use nex_testkit::NatsOptions;

use crate::permissions::{as_user, documented, flags};
use crate::world::World;

const SERVICE: &str = "#!/bin/sh\nexec sleep 1000\n";

/// The public key of the user whose home is this one, made by a first deploy that need not succeed.
fn become_user(world: &mut World, name: &str) -> String {
    let home = world.text_path(name);
    std::fs::create_dir_all(&home).unwrap();
    world.set("HOME", &home);
    let key = nkeys::KeyPair::new_account();
    world.file(&format!("{name}/.nex/issuer.nk"), key.seed().unwrap());
    key.public_key()
}

#[test]
fn who_may_deploy_is_what_the_list_says_and_it_counts_at_once() {
    let mut world = World::new();
    let _up = world.up(&[]);
    let script = world.file("service.sh", SERVICE);
    let first = become_user(&mut world, "first");
    world.nex(&["issuer", "ls"]).expect(0).says(&["No keys were added"]);
    world.nex(&["issuer", "add", "nobody"]).expect(2).says(&["expected a public key"]);
    world.nex(&["issuer", "add", "me", "--name", "first"]).expect(0).says(&[&first, "may deploy", "Only listed keys"]);
    world.nex(&["devrun", &script]).expect(0);
    let second = become_user(&mut world, "second");
    world.nex(&["devrun", &script, "--name", "other"]).expect(3).says(&["invalid workload issuer", &second]);
    world.nex(&["issuer", "add", &second]).expect(0);
    world.nex(&["devrun", &script, "--name", "other"]).expect(0);
    world.nex(&["issuer", "ls"]).expect(0).says(&[&first, &second, "first"]);
    world.nex(&["ps", "--issuer", "me"]).expect(0).says(&["other"]).says_not("servicesh");
    world.nex(&["ps", "--issuer", &first]).expect(0).says(&["servicesh"]).says_not("other");
    world.nex(&["issuer", "rm", &first]).expect(0);
    world.nex(&["issuer", "rm", &second]).expect(2).says(&["the last key that may deploy", "--force"]);
    world.nex(&["issuer", "rm", &first]).expect(2).says(&["is not on the list"]);
    world.nex(&["issuer", "rm", &second, "--force"]).expect(0);
    world.nex(&["devrun", &script, "--name", "third"]).expect(0);
    // What cannot be read permits nobody, and stops are not kept from anybody.
    world.file("state/node/issuers.json", "{");
    world.nex(&["devrun", &script, "--name", "fourth"]).expect(1).says(&["cannot read its list of issuers"]);
    world.nex(&["stop", "third"]).expect(0);
    world.nex(&["issuer", "ls"]).expect(1).says(&["is not valid"]);
}

#[test]
fn an_operator_stops_anything_deploys_nothing_and_everybody_hears_of_it() {
    let mut world = World::new();
    let _up = world.up(&[]);
    let script = world.file("service.sh", SERVICE);
    let issuer = become_user(&mut world, "deployer");
    world.nex(&["issuer", "add", "me"]).expect(0);
    world.nex(&["devrun", &script]).expect(0);
    let operator = become_user(&mut world, "operator");
    let refused = world.nex(&["stop", "servicesh"]).expect(3);
    refused.says(&["the only entity allowed to terminate a workload is the issuer"]);
    world.nex(&["issuer", "add", "me", "--operator", "--name", "oncall"]).expect(0).says(&["may stop anything"]);
    world.nex(&["devrun", &script, "--name", "mine"]).expect(3).says(&["invalid workload issuer"]);
    let events = world.start(&["events"]);
    events.waits_for("Watching events");
    world.nex(&["stop", "servicesh"]).expect(0);
    world.nex(&["ps", "--all"]).expect(0).says(&["servicesh", "stopped"]);
    let ended = world.nex(&["ps", "--all", "--json"]).expect(0).json();
    let reason = ended[0]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains(&format!("stopped by the operator {operator}")), "{ended}");
    assert_eq!(ended[0]["issuer"].as_str(), Some(issuer.as_str()));
    events.waits_for("workload_stopped_by_operator");
    events.interrupt().expect(0);
}

#[test]
fn workloads_of_all_namespaces_are_listed_where_that_is_asked_and_permitted() {
    let world = World::new();
    let _up = world.up(&[]);
    let script = world.file("service.sh", SERVICE);
    for namespace in ["default", "shop"] {
        world.nex(&["devrun", &script, "--name", &format!("of-{namespace}"), "--namespace", namespace]).expect(0);
    }
    world.nex(&["ps"]).expect(0).says(&["of-default"]).says_not("of-shop");
    world.nex(&["ps", "--all-namespaces"]).expect(0).says(&["Namespace", "of-default", "of-shop", "shop"]);
    world.nex(&["ps", "-A", "of-shop"]).expect(0).says(&["of-shop"]).says_not("of-default");
    world.nex(&["stop", "of-shop", "--namespace", "shop"]).expect(0);
    world.nex(&["ps", "-A", "--all"]).expect(0).says(&["Ended lately", "of-shop"]);
    world.nex(&["ps", "-A", "nothing"]).expect(0).says(&["No workloads called 'nothing' in any namespace"]);
}

#[test]
fn who_may_see_one_namespace_does_not_see_all_of_them() {
    let world = World::with_nats_like(NatsOptions { config: documented(), ..NatsOptions::default() });
    let observer = flags("observer");
    let node = world.start(&as_user(&flags("node"), &["node", "up"]));
    node.waits_for("is ready");
    world.nex(&as_user(&observer, &["ps"])).expect(0);
    world.nex(&as_user(&observer, &["ps", "-A"])).expect(3).says(&["may not publish to \"$NEX.WPING.@all\""]);
    // What may not be asked is part of the answer.
    world
        .nex(&as_user(&observer, &["whoami"]))
        .expect(0)
        .says(&["not told: this user may not publish to \"$SYS.REQ.USER.INFO\""]);
    let asking = documented().replacen(
        "\"$NEX.PING\"\n          \"$NEX.WPING.default\"",
        "\"$SYS.REQ.USER.INFO\"\n          \"$NEX.PING\"",
        1,
    );
    assert_ne!(asking, documented());
    let world = World::with_nats_like(NatsOptions { config: asking, ..NatsOptions::default() });
    world.nex(&as_user(&observer, &["whoami"])).expect(0).says(&[
        "observer",
        "May publish",
        "$NEX.PING, ",
        "$SYS.REQ.USER.INFO",
        "_INBOX_OBSERVER.>",
    ]);
}

#[test]
fn whoami_says_which_key_signs_and_what_the_server_knows() {
    let mut world = World::new();
    world.nex(&["whoami"]).expect(6).says(&["none yet", "server named by the variable NATS_URL", "no NATS server"]);
    let key = become_user(&mut world, "me");
    let _up = world.up(&[]);
    let told = world.nex(&["whoami"]).expect(0);
    told.says(&[&key, "default", "nats-server 2.", "May publish", "everything"]);
    let json = world.nex(&["whoami", "--json", "--namespace", "shop"]).expect(0).json();
    assert_eq!((json["issuer"].as_str(), json["namespace"].as_str()), (Some(key.as_str()), Some("shop")));
    assert!(json["user"].as_str().is_some_and(|user| user.starts_with('U')), "{json}");
}
