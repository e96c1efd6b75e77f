//! OCI images as workloads: from a layout, from archives, by a foreign tool's hands, by a file.

use std::path::Path;
use std::process::Command;

use nex_testkit::image::{Image, ImageLayer, busybox};
use nex_testkit::registry::{Manners, Registry, login};
use serde_json::json;

use crate::world::World;

/// A world with a node that takes images; none where there is no busybox or no root.
pub(crate) fn world(test: &str) -> Option<(World, Vec<u8>)> {
    if !nix::unistd::geteuid().is_root() {
        nex_testkit::skip!(test, "images need root", None)
    }
    let Some(busybox) = busybox() else { nex_testkit::skip!(test, "no busybox", None) };
    Some((World::new(), busybox))
}

/// An image that says a word, its arguments and a variable.
pub(crate) fn image(busybox: &[u8], word: &str) -> Image {
    let base = ImageLayer::default().file("bin/busybox", 0o755, busybox).symlink("bin/sh", "busybox");
    let script = format!("#!/bin/sh\necho {word} \"$@\" \"$A\"\nwhile :; do busybox sleep 0.1; done\n");
    let app = ImageLayer::default().file("bin/serve", 0o755, script.as_bytes());
    let config = json!({"Entrypoint": ["serve"], "Cmd": ["default"], "Env": ["PATH=/bin", "A=image"]});
    Image::new(vec![base.finish(), app.finish()], &config)
}

#[test]
fn an_image_runs_from_a_layout_and_from_archives() {
    let Some((world, busybox)) = world("an_image_runs_from_a_layout_and_from_archives") else { return };
    let _up = world.up(&[]);
    let logs = world.start(&["logs"]);
    world.eventually("the tail listens", || logs.err().contains("Watching"));
    let image = image(&busybox, "hello");
    image.write(&world.path("shop")).unwrap();
    world.file("shop.tar", image.archive());
    world.file("old.tar", image.docker_archive());
    for (file, name) in [("shop", "shop"), ("shop.tar", "shoptar"), ("old.tar", "oldtar")] {
        world.nex(&["devrun", &world.text_path(file)]).expect(0).says(&[name]);
    }
    logs.waits_for("hello default image");
    let kinds: Vec<_> = world.ps().iter().map(|workload| workload["type"].clone()).collect();
    assert_eq!(kinds, ["oci", "oci", "oci"]);
    let tagged = format!("oci:{}:v1", world.text_path("shop"));
    world.nex(&["devrun", &tagged, "A=mine", "--argv", "other"]).expect(0).says(&["Replaced"]);
    logs.waits_for("hello other mine");
    world.nex(&["devrun", &format!("oci:{}:v9", world.text_path("shop"))]).expect(1).says(&["0 images (v1)"]);
    world.file("nex.toml", "[workloads.shop]\nfile = 'oci-archive:shop.tar:v1'\nargv = ['applied']\n");
    world.nex(&["apply", "nex.toml"]).expect(0);
    logs.waits_for("hello applied image");
    world.nex(&["apply", "nex.toml"]).expect(0).says(&["All is as it should be"]);
}

#[test]
fn an_image_of_a_registry_is_pulled_once_and_runs_under_its_name() {
    let Some((world, busybox)) = world("an_image_of_a_registry_is_pulled_once_and_runs_under_its_name") else { return };
    let _up = world.up(&[]);
    let logs = world.start(&["logs"]);
    world.eventually("the tail listens", || logs.err().contains("Watching"));
    let image = image(&busybox, "pulled");
    let registry = Registry::of(&image, Manners::Breaks(100_000));
    let public = format!("oci://{}/team/shop:v1", registry.address());
    world.nex(&["devrun", &public, "--plain-http"]).expect(0).says(&["shop"]);
    logs.waits_for("pulled default image");
    let blobs = || registry.requests().iter().filter(|path| path.contains("/blobs/")).count();
    let pulled = blobs();
    assert!(pulled >= 3, "{:?}", registry.requests());
    world.nex(&["devrun", &public, "--plain-http", "--argv", "again"]).expect(0).says(&["Replaced"]);
    logs.waits_for("pulled again image");
    let asked = registry.requests().len();
    let pinned = format!("docker://{}/team/shop@sha256:{}", registry.address(), image.digest());
    world.nex(&["run", &pinned, &world.node_id(), "--name", "pinned", "--plain-http", "--argv", "pinned"]).expect(0);
    logs.waits_for("pulled pinned image");
    assert_eq!((blobs(), registry.requests().len()), (pulled, asked), "what was pulled is not asked for again");
    world.file("nex.toml", format!("[workloads.applied]\nfile = '{public}'\nargv = ['applied']\n"));
    world.nex(&["apply", "nex.toml", "--plain-http"]).expect(0);
    logs.waits_for("pulled applied image");
    world.nex(&["apply", "nex.toml", "--plain-http"]).expect(0).says(&["All is as it should be"]);
}

#[test]
fn what_a_registry_does_not_give_is_told_with_what_to_do() {
    let Some((world, busybox)) = world("what_a_registry_does_not_give_is_told_with_what_to_do") else { return };
    let registry = Registry::of(&image(&busybox, "private"), Manners::Honest);
    let at = |name: &str| format!("oci://{}/{name}", registry.address());
    world.nex(&["devrun", "oci://No Host/x"]).expect(2).says(&["oci://ghcr.io/me/shop:v3"]);
    world.nex(&["devrun", &at("shop:v1"), "--type", "wasm"]).expect(2).says(&["is an image"]);
    let _up = world.up(&[]);
    world.nex(&["devrun", &at("shop:v1")]).expect(1).says(&["--plain-http"]);
    world.nex(&["devrun", &at("shop:v9"), "--plain-http"]).expect(1).says(&["404", "name and tag"]);
    world.nex(&["devrun", &at("private/shop:v1"), "--plain-http"]).expect(1).says(&["401", "docker login"]);
    let auths = json!({"auths": {registry.address(): {"auth": login()}}});
    std::fs::create_dir_all(world.path("home/.docker")).unwrap();
    world.file("home/.docker/config.json", auths.to_string());
    world.nex(&["devrun", &at("private/shop:v1"), "--plain-http"]).expect(0).says(&["shop"]);
}

#[test]
fn an_image_for_another_processor_is_refused_in_the_auction() {
    let Some((world, _)) = world("an_image_for_another_processor_is_refused_in_the_auction") else { return };
    let _up = world.up(&[]);
    let config = json!({"os": "linux", "architecture": "riscv64", "config": {"Cmd": ["/a"]}});
    world.file("other.tar", Image::of(vec![ImageLayer::default().file("a", 0o755, b"x").finish()], config).archive());
    world.nex(&["devrun", &world.text_path("other.tar")]).expect(4).says(&["no node takes this workload", "riscv64"]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a foreign tool makes the image")]
fn a_layout_by_umoci_runs() {
    const TEST: &str = "a_layout_by_umoci_runs";
    let Some((world, busybox)) = world(TEST) else { return };
    let bundle = world.path("bundle");
    let umoci = |args: &[&str]| Command::new("umoci").args(args).output();
    if umoci(&["--version"]).is_err() {
        nex_testkit::skip!(TEST, "no umoci");
    }
    let (layout, tagged) = (world.text_path("theirs"), format!("{}:v1", world.text_path("theirs")));
    let done = |args: &[&str]| {
        let output = umoci(args).unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    done(&["init", "--layout", &layout]);
    done(&["new", "--image", &tagged]);
    done(&["unpack", "--image", &tagged, bundle.to_str().unwrap()]);
    let root = bundle.join("rootfs");
    std::fs::create_dir(root.join("bin")).unwrap();
    install(&root.join("bin/busybox"), &busybox);
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    done(&["repack", "--image", &tagged, bundle.to_str().unwrap()]);
    done(&["config", "--image", &tagged, "--config.entrypoint", "/bin/sh", "--config.env", "PATH=/bin"]);
    let _up = world.up(&[]);
    let logs = world.start(&["logs"]);
    world.eventually("the tail listens", || logs.err().contains("Watching"));
    world.nex(&["devrun", &layout, "--argv", "-c 'echo it runs; while :; do busybox sleep 1; done'"]).expect(0);
    logs.waits_for("it runs");
}

fn install(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
