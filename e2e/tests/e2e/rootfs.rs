//! `nex rootfs`: root images from what a user has.

use nex_testkit::dist_binary;

use crate::world::World;

#[test]
fn an_image_of_the_agent_alone_is_the_same_every_time() {
    let world = World::new();
    let first = world.nex(&["rootfs", "--json"]).expect(0).json();
    assert_eq!((&first["path"], &first["base_digest"]), (&"rootfs.img".into(), &serde_json::Value::Null));
    assert_eq!(world.path("rootfs.img").metadata().unwrap().len(), first["bytes"].as_u64().unwrap());
    let ended = world.nex(&["fs", "-o", "again.img"]).expect(0);
    ended.says(&["wrote again.img: ", &format!("sha256:{}", first["sha256"].as_str().unwrap())]);
    assert!(std::fs::read(world.path("rootfs.img")).unwrap() == std::fs::read(world.path("again.img")).unwrap());
}

#[test]
fn a_directory_is_the_base_and_its_image_is_another() {
    let world = World::new();
    world.file("tree/etc/motd", "hello");
    let echo = dist_binary("echo-service");
    let args = ["rootfs", "./tree", "--output", "a.img", "--agent", echo.to_str().unwrap(), "--size", "157286400"];
    world.nex(&args).expect(0).says(&["wrote a.img", "--size has no effect"]);
    let image = std::fs::read(world.path("a.img")).unwrap();
    assert!(image.windows(5).any(|window| window == b"hello"));
    let mut world = world;
    world.set("SOURCE_DATE_EPOCH", "0");
    world.nex(&args).expect(0);
    assert!(image != std::fs::read(world.path("a.img")).unwrap(), "no time in it is later than the one given");
}

#[test]
fn what_cannot_be_a_base_or_an_agent_is_refused_with_the_reason() {
    let world = World::new();
    let script = world.file("agent.sh", "#!/bin/sh\n");
    world.file("broken.tar", "no tarball ".repeat(100));
    for (args, code, said) in [
        (&["./nowhere"][..], 1, "there is nothing at ./nowhere"),
        (&["No Image"], 1, "neither a file nor a directory"),
        (&["./broken.tar"], 1, "no tarball"),
        (&["oci:./nowhere"], 1, "cannot read ./nowhere/index.json"),
        (&["--agent", &script], 1, "it is not a static ELF file"),
        (&["--agent", "/no/such"], 1, "no nex-agent at /no/such"),
        (&["--script", "x"], 2, "no container is started"),
        (&["alpine", "--image", "alpine"], 2, "cannot be used with"),
        (&["alpine", "--registry-user", "me"], 2, "NEX_REGISTRY_PASSWORD"),
        (&["127.0.0.1:1/a/b", "--plain-http"], 1, "cannot talk to the registry"),
    ] {
        world.nex(&[&["rootfs"], args].concat()).expect(code).says(&[said]);
        assert!(!world.path("rootfs.img").exists(), "{args:?}");
    }
}
