//! OCI images as services: run as they say, overridden, ended, kept.

use std::path::Path;

use nex_client::deploy::Deployment;
use nex_protocol::deploy::WorkloadType;
use nex_testkit::image::{Image, ImageLayer, busybox};
use serde_json::{Value, json};

use crate::world::World;

/// A world whose node takes images, and a busybox to put into them; none where this host has neither.
async fn world(test: &str) -> Option<(World, Vec<u8>)> {
    let Some(busybox) = busybox() else { nex_testkit::skip!(test, "no busybox", None) };
    let mut world =
        World::start(json!({"workload_types": ["native", "oci"], "workload_limits": {"memory_mib": 128, "tmp_mib": 16}})).await;
    let info = world.client.info(&world.target().node).await.unwrap();
    if !info.supported_workload_types.iter().any(|kind| kind == "oci") {
        world.stop().await;
        nex_testkit::skip!(test, "this host mounts no images", None)
    }
    Some((world, busybox))
}

/// An image of a busybox and a script.
fn image(busybox: &[u8], script: &str, config: Value) -> Image {
    image_with(busybox, script, config, ImageLayer::default())
}

fn image_with(busybox: &[u8], script: &str, config: Value, more: ImageLayer) -> Image {
    let base = ImageLayer::default()
        .directory("bin", 0o755)
        .file("bin/busybox", 0o755, busybox)
        .symlink("bin/sh", "busybox")
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/srv/web:/bin/sh\n");
    let app = ImageLayer::default().file("app/start", 0o755, format!("#!/bin/sh\n{script}\n").as_bytes());
    let mut whole = json!({"Cmd": ["/app/start"], "Env": ["PATH=/bin"]});
    if let (Value::Object(whole), Value::Object(config)) = (&mut whole, config) {
        whole.extend(config);
    }
    Image::new(vec![base.finish(), app.finish(), more.finish()], &whole)
}

async fn deployment(world: &World, name: &str, image: &Image) -> Deployment {
    world.prepare(name, WorkloadType::Oci, &image.archive()).await
}

fn built(state: &Path) -> Vec<String> {
    let files = std::fs::read_dir(state.join("artifacts")).unwrap().flatten();
    files.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name.ends_with(".erofs")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_runs_as_it_says_and_as_its_deployer_says() {
    let Some((mut world, busybox)) = world("an_image_runs_as_it_says_and_as_its_deployer_says").await else { return };
    let script = "trap 'echo ended by QUIT; exit 0' QUIT
trap 'echo wrong signal' TERM INT
echo \"run:$*:$A:$lower:$HOME:$PWD\"
busybox touch /here 2>/dev/null || echo read-only
busybox touch /tmp/here && echo scratch
echo 'bad news' >&2
while :; do busybox sleep 0.05; done";
    let config = json!({
        "User": "web", "Entrypoint": ["start"], "Cmd": ["of", "image"], "WorkingDir": "/app/data", "StopSignal": "SIGQUIT",
        "Env": ["PATH=/app:/bin", "A=image", "lower=kept"], "ExposedPorts": {"80/tcp": {}},
    });
    let image = image(&busybox, script, config);
    let plain = deployment(&world, "plain", &image).await;
    let started = world.deploy(&plain).await;
    world.until("it ran as its image says", |it| it.has_logged("run:of image:image:kept:/srv/web:/app/data")).await;
    world.until("it wrote where it may", |it| it.has_logged("read-only") && it.has_logged("scratch")).await;
    world.until("its error is heard", |it| it.has_logged("bad news")).await;
    world.stop_workload(&started).await;
    world.until("it ended by its own signal", |it| it.has_logged("ended by QUIT")).await;
    assert!(!world.has_logged("wrong signal"));
    let mut other = Deployment { argv: vec!["two words".into(), "x".into()], ..plain };
    other.environment.insert("A".into(), "deployer".into());
    let started = world.deploy(&other).await;
    world.until("it ran as its deployer says", |it| it.has_logged("run:two words x:deployer:kept")).await;
    world.stop_workload(&started).await;
    assert_eq!(built(&world.state()).len(), 1, "one root for both");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_image_writes_is_its_own_and_gone_with_it() {
    let Some((mut world, busybox)) = world("what_an_image_writes_is_its_own_and_gone_with_it").await else { return };
    let script = "busybox test -e /var/cache/app && echo 'it is there already' || echo fresh
busybox mkdir -p /var/cache/app && echo kept > /var/cache/app/file && echo \"wrote $(busybox cat /var/cache/app/file)\"
echo more >> /app/settings && echo \"settings: $(busybox cat /app/settings | busybox tr '\\n' ' ')\"
busybox rm /app/old && ! busybox test -e /app/old && echo removed
busybox chmod 700 /app/settings && echo \"mine: $(busybox stat -c %a /app/settings)\"
busybox test $(busybox stat -c %u /app/start) = $(busybox id -u) && echo owner
busybox mv /app/start /app/start2 && busybox mv /app/dir /app/dir2 && echo \"moved $(busybox cat /app/dir2/inside)\"
busybox dd if=/dev/zero of=/big bs=64k count=4096 2>/dev/null || echo full
busybox test $(busybox stat -c %s /big) -lt 17000000 && echo bounded
echo x > /etc/passwd || echo 'accounts stay'
busybox httpd -p 80 -h /app && echo \"served $(busybox wget -qO- http://127.0.0.1/dir2/inside)\"
echo all; while :; do busybox sleep 0.05; done";
    let more = ImageLayer::default().file("app/settings", 0o644, b"some\n").file("app/old", 0o600, b"old");
    let more = more.file("app/dir/inside", 0o644, b"inside");
    let plain = deployment(&world, "plain", &image_with(&busybox, script, json!({}), more)).await;
    for count in 1..=2 {
        let started = world.deploy(&plain).await;
        world.until("it has tried all", |it| it.logs().iter().filter(|(_, line)| line.text == "all").count() == count).await;
        world.stop_workload(&started).await;
    }
    for line in [
        "fresh",
        "wrote kept",
        "settings: some more ",
        "removed",
        "mine: 700",
        "owner",
        "moved inside",
        "full",
        "bounded",
        "accounts stay",
        "served inside",
    ] {
        assert_eq!(world.logs().iter().filter(|(_, it)| it.text == line).count(), 2, "{line}: {:?}", world.logs());
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_ends_is_told_with_its_code_and_one_that_cannot_start_with_why() {
    let Some((mut world, busybox)) = world("an_image_that_ends_is_told_with_its_code").await else { return };
    let ends = image(&busybox, "echo last words; exit 7", json!({}));
    let settled = Deployment { settle: Some(crate::world::timeout()), ..deployment(&world, "ends", &ends).await };
    let failure = world.refused(&settled).await;
    assert!(failure.message.contains("status: 7") || failure.message.contains('7'), "{failure:?}");
    assert!(failure.message.contains("last words"), "{failure:?}");
    for (name, config, expected) in [
        ("none", json!({"Cmd": ["/none/such"]}), "no program /none/such"),
        ("nothing", json!({"Cmd": null}), "--argv"),
        ("user", json!({"User": "nobody"}), "runs as 'nobody'"),
        ("path", json!({"Cmd": ["nowhere"]}), "in its PATH, which is /bin"),
    ] {
        let failure = world.refused(&deployment(&world, name, &image(&busybox, "", config)).await).await;
        assert!(failure.message.contains(expected), "{expected}: {failure:?}");
    }
    let other = Image::of(vec![], json!({"os": "linux", "architecture": "s390x", "config": {"Cmd": ["/a"]}}));
    let failure = world.refused(&deployment(&world, "other", &other).await).await;
    assert!(failure.message.contains("only for linux/s390x"), "{failure:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_images_are_refused_and_leave_nothing() {
    let Some((mut world, _)) = world("hostile_images_are_refused_and_leave_nothing").await else { return };
    let layer = |layer: ImageLayer| Image::new(vec![layer.finish()], &json!({"Cmd": ["/a"]})).archive();
    let before = std::fs::read_dir(world.state().join("artifacts")).unwrap().count();
    for (name, bytes, expected) in [
        ("path", layer(ImageLayer::default().file("../../etc/cron.d/x", 0o644, b"x")), "no path of an image"),
        ("device", layer(ImageLayer::default().device("sda")), "is a device"),
        ("loop", layer(ImageLayer::default().symlink("a", "a").file("a/b", 0o644, b"")), "too many symbolic links"),
        ("lie", Image::new(vec![vec![0; 1024]], &json!({})).lying(1, b"other").archive(), "cannot be used"),
        ("noise", vec![7; 4096], "cannot read"),
    ] {
        let deployment = world.prepare(name, WorkloadType::Oci, &bytes).await;
        let failure = world.refused(&deployment).await;
        assert!(failure.message.contains(expected), "{name}: {failure:?}");
    }
    assert_eq!(built(&world.state()), Vec::<String>::new());
    let left = std::fs::read_dir(world.state().join("artifacts")).unwrap().flatten().map(|entry| entry.file_name());
    let drafts = left.filter(|name| name.to_string_lossy().starts_with("draft-")).count();
    assert_eq!((before, drafts), (0, 0));
    assert_eq!(world.node().registry().count(), 0);
    world.stop().await;
}
