//! Images in NATS: pushed, run where no registry is, pulled again, removed; and what comes of blobs and tags that lie.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use data_encoding::BASE64URL;
use futures::StreamExt as _;
use nex_testkit::NatsOptions;
use nex_testkit::image::{Image, ImageLayer};
use nex_testkit::registry::{Manners, Registry};
use nex_testkit::signer::{Signed, Signer};
use serde_json::{Value, json};

use crate::images::{image, world};
use crate::permissions::{as_user, flags};
use crate::world::World;

const BUCKET: &str = "NEXIMAGES_default";

/// A small image of two layers, the first of which all share.
fn small(word: &str) -> Image {
    let base = ImageLayer::default().file("base", 0o644, &[7; 300_000]).finish();
    let app = ImageLayer::default().file("app", 0o755, word.as_bytes()).finish();
    Image::new(vec![base, app], &json!({"Cmd": ["/app"]}))
}

fn stream_of(world: &World, bucket: &str) -> stream::Stream {
    let client = world.client();
    world.block_on(async { jetstream::new(client).get_stream(format!("OBJ_{bucket}")).await }).unwrap()
}

/// Number of the last message in a bucket: nothing is written without a new one.
fn last(world: &World, bucket: &str) -> u64 {
    stream_of(world, bucket).cached_info().state.last_sequence
}

/// Gives what lies in the bucket for images other parts, of the same length; or none.
fn damage(world: &World, is_gone: bool) {
    let (stream, client) = (stream_of(world, BUCKET), world.client());
    world.block_on(async {
        let jetstream = jetstream::new(client);
        let counts: Vec<_> = stream.info_with_subjects(format!("$O.{BUCKET}.C.>")).await.unwrap().collect().await;
        for (subject, _) in counts.into_iter().map(Result::unwrap) {
            let size = stream.get_last_raw_message_by_subject(&subject).await.unwrap().payload.len();
            stream.purge().filter(&subject).await.unwrap();
            if !is_gone {
                jetstream.publish(subject, vec![b'!'; size].into()).await.unwrap().await.unwrap();
            }
        }
    });
}

/// Writes a tag as anybody can who may publish there.
fn forge(world: &World, tag: &str, record: &Value) {
    let name = format!("tags/{tag}");
    let entry = json!({"name": name, "bucket": BUCKET, "nuid": "", "metadata": {"nex.image": record.to_string()}});
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Rollup", "sub");
    let subject = format!("$O.{BUCKET}.M.{}", BASE64URL.encode(name.as_bytes()));
    let client = world.client();
    world.block_on(async {
        let jetstream = jetstream::new(client);
        jetstream.publish_with_headers(subject, headers, entry.to_string().into()).await.unwrap().await.unwrap();
    });
}

#[test]
fn an_image_is_pushed_once_and_runs_with_no_registry_in_reach() {
    let Some((mut world, busybox)) = world("an_image_is_pushed_once_and_runs_with_no_registry_in_reach") else { return };
    let _up = world.up(&[]);
    let logs = world.start(&["logs"]);
    world.eventually("the tail listens", || logs.err().contains("Watching"));
    let registry = Registry::of(&image(&busybox, "stored"), Manners::Honest);
    let origin = format!("oci://{}/team/shop:v1", registry.address());
    world.nex(&["image", "push", &origin, "--plain-http"]).expect(0).says(&["Pushed image://shop:v1", "4 blobs sent"]);
    let asked = registry.requests().len();

    // Another machine, which has nothing yet and no way to the registry.
    world.set("XDG_CACHE_HOME", &world.text_path("edge"));
    world.nex(&["devrun", "image://shop:v1"]).expect(0).says(&["shop"]);
    logs.waits_for("stored default image");
    let uploaded = last(&world, "NEXCLIFILES");

    // What was packed is in the bucket for uploads: nothing is read of the image's blobs, and nothing is sent.
    damage(&world, true);
    let again = world.nex(&["devrun", "image://shop:v1", "--argv", "again"]).expect(0);
    again.says(&["is there already, unchanged", "Replaced"]);
    logs.waits_for("stored again image");
    world.file("nex.toml", "[workloads.shop]\nfile = 'image://shop:v1'\nargv = ['applied']\n");
    world.nex(&["apply", "nex.toml"]).expect(0);
    logs.waits_for("stored applied image");
    world.nex(&["apply", "nex.toml"]).expect(0).says(&["All is as it should be"]);
    assert_eq!(last(&world, "NEXCLIFILES"), uploaded);
    assert_eq!(registry.requests().len(), asked);

    let digest = image(&busybox, "stored").digest().to_owned();
    let pinned = format!("image://shop:v1@sha256:{digest}");
    world.nex(&["run", &pinned, &world.node_id(), "--name", "pinned", "--argv", "pinned"]).expect(0);
    logs.waits_for("stored pinned image");
    let other = format!("image://shop:v1@sha256:{}", "0".repeat(64));
    world.nex(&["run", &other, &world.node_id(), "--name", "other"]).expect(1).says(&[&digest, "next: "]);
    world.nex(&["run", "image://shop", &world.node_id(), "--name", "x", "--type", "wasm"]).expect(2).says(&["is an image"]);
    world.nex(&["devrun", "image://shop:v9"]).expect(1).says(&["there is no image shop:v9", "nex image ls"]);
    world
        .nex(&["devrun", "image://shop:v1", "--namespace", "theirs"])
        .expect(1)
        .says(&["there is no image shop:v1 in namespace theirs"]);

    // A machine that has nothing either meets the loss.
    world.set("XDG_CACHE_HOME", &world.text_path("third"));
    world.nex(&["devrun", "image://shop:v1"]).expect(1).says(&["has lost its parts", "nex image push --again"]);
    world.nex(&["image", "push", &origin, "shop:v1", "--plain-http"]).expect(0).says(&["4 blobs sent"]);
    world.nex(&["devrun", "image://shop:v1"]).expect(0).says(&["is there already, unchanged"]);
}

#[test]
fn images_share_layers_and_become_archives_and_layouts_again() {
    let mut world = World::with_nats();
    small("one").write(&world.path("shop")).unwrap();
    world.file("two.tar", small("two").docker_archive());
    world.nex(&["image", "ls"]).expect(0).says(&["No images in namespace default"]);
    world.nex(&["image", "gc"]).expect(0).says(&["0 of 0 blobs"]);
    world.nex(&["image", "push", "shop", "shop:v1"]).expect(0).says(&["4 blobs sent", "0 already there"]);
    let second = world.nex(&["image", "push", "two.tar", "--json"]).expect(0).json();
    assert_eq!(
        (second["url"].as_str(), second["sent"].as_array().map(Vec::len)),
        (Some("image://two:latest"), Some(2)),
        "{second}"
    );
    assert_eq!(second["there"].as_array().map(Vec::len), Some(2), "{second}");
    let listed = world.nex(&["image", "ls", "--json"]).expect(0).json();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|image| image["url"].as_str().unwrap()).collect();
    assert_eq!(names, ["image://shop:v1", "image://two:latest"]);
    world.nex(&["image", "ls"]).expect(0).says(&["shop", "v1", &small("one").digest()[..12], "linux/"]);

    world.set("XDG_CACHE_HOME", &world.text_path("elsewhere"));
    world.nex(&["image", "pull", "image://shop:v1", "-o", "pulled.tar"]).expect(0).says(&["an archive of image://shop:v1"]);
    world.nex(&["image", "pull", "shop:v1", "-o", "oci:layout"]).expect(0).says(&["a layout"]);
    world.nex(&["image", "pull", "shop:v1", "-o", "oci:layout"]).expect(1).says(&["not empty"]);
    for (from, to) in [("pulled.tar", "copy:v1"), ("oci:layout:v1", "copy:v2"), ("image://shop:v1", "copy:v3")] {
        world.nex(&["image", "push", from, to]).expect(0).says(&[small("one").digest(), "0 blobs sent", "4 already there"]);
    }
    world.nex(&["image", "rm", "shop:v1", "copy:v1", "copy:v2", "copy:v3"]).expect(0).says(&["Removed image://copy:v2"]);
    world.nex(&["image", "gc"]).expect(0).says(&["0 of 6 blobs"]);
    let would = world.nex(&["image", "gc", "--older-than", "1ms", "--dry-run", "--json"]).expect(0).json();
    assert_eq!((would["removed"].as_array().map(Vec::len), would["kept"].as_u64()), (Some(2), Some(4)), "{would}");
    world.nex(&["image", "gc", "--older-than", "1ms"]).expect(0).says(&["2 of 6 blobs", "removed"]);
    world.nex(&["image", "pull", "two", "-o", "two-again.tar"]).expect(0);
    world.nex(&["image", "pull", "shop:v1", "-o", "none.tar"]).expect(1).says(&["there is no image shop:v1"]);
    assert!(!world.path("none.tar").exists());
}

#[test]
fn what_lies_in_the_bucket_is_verified_and_what_is_no_name_is_refused() {
    let mut world = World::with_nats();
    small("one").write(&world.path("shop")).unwrap();
    let long = format!("{}:v1", "a".repeat(300));
    for name in ["../shop:v1", "Shop", "shop:", "shop:a/b", "shop:v1@sha256:12", &long] {
        world.nex(&["image", "push", "shop", name]).expect(2).says(&["' is no "]);
        world.nex(&["image", "rm", name]).expect(2);
    }
    world.nex(&["image", "push", "shop", ""]).expect(2);
    world.nex(&["image", "push", "."]).expect(2).says(&["is no OCI image", "docker save"]);
    world.file("Odd Name.tar", small("odd").archive());
    world.nex(&["image", "push", "Odd Name.tar"]).expect(2).says(&["nex image push IMAGE NAME:TAG"]);

    world.nex(&["image", "push", "shop"]).expect(0);
    let pull = |name: &str| world.nex(&["image", "pull", name, "-o", "pulled.tar"]);
    let digest = &small("one").digest().to_owned();
    let blob = |digest: &str, size: u64| json!({"digest": digest, "size": size});
    let record = |top: Value| json!({"top": top, "platforms": ["linux/amd64"], "blobs": [top]});
    forge(&world, "huge:v1", &record(blob(digest, 5 << 20)));
    pull("huge:v1").expect(1).says(&["more than 4 MiB"]);
    forge(&world, "gone:v1", &record(blob(&"0".repeat(64), 100)));
    pull("gone:v1").expect(1).says(&["is not in the bucket any more"]);
    forge(&world, "part:v1", &record(blob(digest, small("one").blobs().last().unwrap().1.len() as u64)));
    pull("part:v1").expect(1).says(&["not among the blobs"]);
    forge(&world, "many:v1", &json!({"top": blob(digest, 1), "blobs": vec![blob(digest, 1); 4_001]}));
    pull("many:v1").expect(1).says(&["more than 4000 blobs", "nex image rm many:v1"]);
    damage(&world, false);
    pull("shop").expect(1).says(&["its content has the digest sha256:"]);
    assert!(!world.path("pulled.tar").exists(), "nothing is left of it");
    world.set("XDG_CACHE_HOME", &world.text_path("elsewhere"));
    world.nex(&["image", "push", "shop", "--again"]).expect(0).says(&["4 blobs sent"]);
    world.nex(&["image", "pull", "shop", "-o", "pulled.tar"]).expect(0);
}

#[test]
fn mirrors_are_asked_before_the_registry_and_without_tls_only_where_they_may_be() {
    let mut world = World::with_nats();
    let (lies, honest) = (Registry::of(&small("one"), Manners::Lies), Registry::of(&small("one"), Manners::Honest));
    let conf = |insecure: bool, name: &str| {
        let mirror = |registry: &Registry| {
            let place = registry.address();
            format!("[[registry.mirror]]\nlocation = '{place}/{name}'\ninsecure = {insecure}\n")
        };
        format!("[[registry]]\nlocation = '127.0.0.1:9'\n{}{}", mirror(&lies), mirror(&honest))
    };
    let path = "home/config/containers/registries.conf";
    // The registry itself is out of reach.
    let push = ["image", "push", "oci://127.0.0.1:9/team/shop:v1"];
    world.nex(&push).expect(1).says(&["cannot pull 127.0.0.1:9/team/shop:v1"]);
    world.file(path, conf(false, "hub"));
    world.nex(&push).expect(1).says(&["does not give it"]);
    assert_eq!((lies.requests().len(), honest.requests().len()), (0, 0), "nobody said that they may be asked without TLS");
    world.file(path, conf(true, "private/hub"));
    world.set("NEX_REGISTRY_USER", nex_testkit::registry::LOGIN.0);
    world.set("NEX_REGISTRY_PASSWORD", nex_testkit::registry::LOGIN.1);
    world.nex(&push).expect(1).says(&["401"]);
    world.file(path, conf(true, "hub"));
    world.nex(&push).expect(0).says(&["its content has the digest", "Pushed image://shop:v1"]);
    assert!(honest.requests().iter().any(|path| path.contains("/v2/hub/team/shop/manifests/v1")), "{:?}", honest.requests());
    world.file(path, "[[registry]]\nlocation = '127.0.0.1:9'\nblocked = true\n");
    world.nex(&push).expect(2).says(&["is blocked by registries.conf"]);
    world.file(path, "[[registry]\n");
    world.nex(&push).expect(1).says(&["registries.conf", "next: correct the file"]);
}

#[test]
fn a_signature_that_is_demanded_is_looked_up_and_verified() {
    let world = World::with_nats();
    let (ours, theirs, image) = (Signer::new(), Signer::new(), small("one"));
    world.file("cosign.pub", ours.pem());
    let serve = |signed: Option<Signed>| {
        let mut blobs: BTreeMap<_, _> = image.blobs().iter().cloned().collect();
        let mut tags = BTreeMap::from([("v1".to_owned(), image.digest().to_owned())]);
        if let Some((more, tag)) = signed {
            blobs.extend(more);
            tags.extend([tag]);
        }
        Registry::serve(blobs, tags, Manners::Honest)
    };
    let push = |registry: &Registry, key: &str| {
        let image = format!("oci://{}/team/shop:v1", registry.address());
        world.nex(&["image", "push", &image, "--plain-http", "--verify-key", key])
    };
    let tag = format!("sha256-{}.sig", image.digest());
    push(&serve(None), "cosign.pub").expect(1).says(&["is not signed", &tag, "cosign sign --key"]);
    let by_others = serve(Some(theirs.sign(image.digest(), image.digest())));
    push(&by_others, "cosign.pub").expect(1).says(&["none of the 1 signatures", "not made with this key"]);
    let for_another = serve(Some(ours.sign(&"0".repeat(64), image.digest())));
    push(&for_another, "cosign.pub").expect(1).says(&["for another image, sha256:0000"]);
    world.nex(&["image", "ls"]).expect(0).says(&["No images"]);
    let signed = serve(Some(ours.sign(image.digest(), image.digest())));
    push(&signed, "cosign.pub").expect(0).says(&["Pushed image://shop:v1"]);
    // What was pulled before is looked up as well.
    push(&by_others, "cosign.pub").expect(1).says(&["not made with this key"]);
    let base = format!("{}/team/shop:v1", by_others.address());
    let rootfs = ["rootfs", &base, "--plain-http", "--verify-key", "cosign.pub"];
    world.nex(&rootfs).expect(1).says(&["not made with this key"]);
    push(&signed, "none.pub").expect(1).says(&["cannot read none.pub"]);
    world.file("private.pem", "-----BEGIN PRIVATE KEY-----\n");
    push(&signed, "private.pem").expect(1).says(&["private.pem", "a private key", "cosign.pub"]);
    image.write(&world.path("shop")).unwrap();
    for line in [&["image", "push", "shop"][..], &["devrun", "shop"], &["image", "push", "image://shop:v1", "shop:v2"]] {
        world
            .nex(&[line, &["--verify-key", "cosign.pub"]].concat())
            .expect(2)
            .says(&["is of no registry", "leave --verify-key out"]);
    }
}

/// What `docs/security.md` says that each needs, with its own place for replies.
fn users() -> String {
    let read = [
        "$JS.API.STREAM.INFO.OBJ_NEXIMAGES_default",
        "$JS.API.DIRECT.GET.OBJ_NEXIMAGES_default.>",
        "$JS.API.CONSUMER.CREATE.OBJ_NEXIMAGES_default",
        "$JS.FC.OBJ_NEXIMAGES_default.>",
    ];
    let push = ["$JS.API.STREAM.CREATE.OBJ_NEXIMAGES_default", "$O.NEXIMAGES_default.>"];
    let remove = ["$JS.API.STREAM.MSG.GET.OBJ_NEXIMAGES_default", "$JS.API.STREAM.PURGE.OBJ_NEXIMAGES_default"];
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md")).unwrap();
    for subject in read.iter().chain(&push).chain(&remove) {
        assert!(documented.contains(&format!("`{subject}`")), "{subject} is not documented");
    }
    let user = |name: &str, subjects: &[&str]| {
        let (list, inbox) = (subjects.join("\", \""), name.to_uppercase());
        format!(
            "{{ user: {name}, password: {name}-secret, permissions: {{ publish: [\"{list}\"], subscribe: [\"_INBOX_{inbox}.>\"] }} }}\n"
        )
    };
    let (pusher, remover) = ([&read[..], &push].concat(), [&read[..], &push, &remove].concat());
    format!("authorization {{ users: [ {}{}{} ] }}", user("reader", &read), user("pusher", &pusher), user("remover", &remover))
}

#[test]
fn with_the_permissions_of_the_document_images_are_pushed_pulled_and_removed() {
    let world = World::with_nats_like(NatsOptions { config: users(), ..NatsOptions::default() });
    // Large enough for flow control.
    let layer = ImageLayer::default().file("base", 0o644, &[7; 8_000_000]).finish();
    Image::new(vec![layer], &json!({"Cmd": ["/app"]})).write(&world.path("shop")).unwrap();
    let by = |user: &str, line: &[&str]| world.nex(&as_user(&flags(user), line));
    by("reader", &["image", "push", "shop"]).expect(3).says(&["OBJ_NEXIMAGES_default"]);
    by("pusher", &["image", "push", "shop"]).expect(0).says(&["3 blobs sent"]);
    by("pusher", &["image", "push", "shop", "shop:v2"]).expect(0).says(&["3 already there"]);
    by("reader", &["image", "ls"]).expect(0).says(&["shop"]);
    by("reader", &["image", "pull", "shop", "-o", "shop.tar"]).expect(0);
    by("reader", &["image", "rm", "shop"]).expect(3).says(&["$O.NEXIMAGES_default"]);
    by("pusher", &["image", "rm", "shop", "shop:v2"]).expect(0);
    by("pusher", &["image", "gc", "--older-than", "1ms"]).expect(3);
    by("remover", &["image", "gc", "--older-than", "1ms"]).expect(0).says(&["3 of 3 blobs"]);
}
