//! Images in NATS: blobs that are shared, pushes that meet, removal while others push, and what strangers write.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::HeaderMap;
use async_nats::jetstream;
use data_encoding::BASE64URL;
use futures::StreamExt as _;
use nex_client::Client;
use nex_client::artifact::NewBucket;
use nex_client::image::{Collected, Collection, ImageError, ImageStore, LocalBlob, Push, Pushed};
use nex_protocol::digest::Digest;
use nex_protocol::image_store::{BlobRecord, ImageName, ImageRecord};
use serde_json::{Value, json};
use support::Nats;
use tokio::runtime::Handle;

/// Size of a part on the wire.
const PART: usize = 128 * 1024;
const BUCKET: &str = "NEXIMAGES_default";

struct World {
    _nats: Nats,
    client: Client,
    store: ImageStore,
    directory: tempfile::TempDir,
}

/// Blobs one after the other in a file, the first of them the manifest.
struct Archive {
    record: ImageRecord,
    blobs: Vec<LocalBlob>,
    path: std::path::PathBuf,
}

impl World {
    async fn start() -> Self {
        let nats = Nats::start(true).await;
        let client = Client::new(async_nats::connect(&nats.url).await.unwrap(), "default".parse().unwrap());
        let store = Box::pin(client.make_image_store(NewBucket { bytes: 1 << 20, replicas: 1 }, None)).await.unwrap();
        Self { _nats: nats, client, store, directory: tempfile::tempdir().unwrap() }
    }

    fn archive(&self, contents: &[&[u8]]) -> Archive {
        let (mut blobs, mut offset) = (Vec::new(), 7);
        for content in contents {
            let blob = BlobRecord { digest: Digest::of(content), size: content.len() as u64 };
            blobs.push(LocalBlob { blob, offset });
            offset += blob.size;
        }
        let path = self.directory.path().join(blobs[0].blob.digest.to_string());
        std::fs::write(&path, [&b"header."[..], &contents.concat(), b"end"].concat()).unwrap();
        let all = blobs.iter().map(|local| local.blob).collect();
        let record = ImageRecord { top: blobs[0].blob, media_type: None, platforms: vec!["linux/amd64".into()], blobs: all };
        Archive { record, blobs, path }
    }

    async fn push(&self, name: &str, archive: &Archive) -> Result<Pushed, ImageError> {
        self.push_hearing(name, archive, |_, _| ()).await
    }

    async fn push_hearing(
        &self,
        name: &str,
        archive: &Archive,
        progress: impl FnMut(u64, u64) + Send,
    ) -> Result<Pushed, ImageError> {
        let Archive { record, blobs, path } = archive;
        let push = Push { name: &image(name), record, archive: path, blobs, again: false, may_grow: true };
        Box::pin(self.store.push(push, progress)).await
    }

    /// Removes whatever is unused, however young.
    async fn collect(&self) -> Result<Collected, ImageError> {
        Box::pin(self.store.collect(Collection { now_ms: now(), before_ms: i64::MAX, dry_run: false })).await
    }

    async fn read(&self, blob: BlobRecord) -> Result<Vec<u8>, ImageError> {
        let mut reader = self.store.blob(blob).await?;
        let mut content = Vec::new();
        while let Some(part) = reader.next().await? {
            content.extend_from_slice(&part);
        }
        Ok(content)
    }

    fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client.nats().clone())
    }

    /// Writes an entry as anybody can who may publish there.
    async fn forge(&self, name: &str, mut entry: Value) {
        let subject = format!("$O.{BUCKET}.M.{}", BASE64URL.encode(name.as_bytes()));
        entry["name"] = entry.get("name").cloned().unwrap_or(json!(name));
        entry["bucket"] = json!(BUCKET);
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", "sub");
        let body = serde_json::to_vec(&entry).unwrap();
        self.jetstream().publish_with_headers(subject, headers, body.into()).await.unwrap().await.unwrap();
    }

    /// Names of parts in the bucket, and how many there are.
    async fn parts(&self) -> Vec<(String, usize)> {
        let stream = self.jetstream().get_stream(format!("OBJ_{BUCKET}")).await.unwrap();
        let counts: Vec<_> = stream.info_with_subjects(format!("$O.{BUCKET}.C.>")).await.unwrap().collect().await;
        counts.into_iter().map(Result::unwrap).collect()
    }
}

fn image(name: &str) -> ImageName {
    name.parse().unwrap()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn content(seed: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at / 7 % 251).unwrap() ^ seed).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_share_blobs_and_only_what_is_missing_is_sent() {
    let world = World::start().await;
    let (base, app) = (content(1, 3 * PART + 5), content(2, 100));
    let first = world.archive(&[b"manifest one", &base, b""]);
    let second = world.archive(&[b"manifest two", &base, &app]);
    let pushed = world.push("shop:v1", &first).await.unwrap();
    assert_eq!((pushed.sent.len(), pushed.there.len(), pushed.replaced), (3, 0, None));
    let heard = Mutex::new(Vec::new());
    let pushed = world.push_hearing("shop:v2", &second, |sent, total| heard.lock().unwrap().push((sent, total))).await.unwrap();
    assert_eq!(pushed.there, [first.blobs[1].blob]);
    assert_eq!(heard.into_inner().unwrap().last(), Some(&(112, 112)));
    assert_eq!(world.read(first.blobs[1].blob).await.unwrap(), base);
    assert_eq!(world.read(first.blobs[2].blob).await.unwrap(), b"");
    let again = world.push("shop:v2", &second).await.unwrap();
    assert_eq!((again.sent.len(), again.there.len()), (0, 3));
    let moved = world.push("shop:v2", &first).await.unwrap();
    assert_eq!(moved.replaced, Some(second.record.top.digest));
    let names: Vec<_> = world.store.images().await.unwrap().iter().map(|image| image.name.to_string()).collect();
    assert_eq!(names, ["shop:v1", "shop:v2"]);
    let wanted = image(&format!("shop:v2@sha256:{}", second.record.top.digest));
    assert!(matches!(world.store.image(&wanted).await, Err(ImageError::Moved { .. })));
    let other = Client::new(world.client.nats().clone(), "other".parse().unwrap());
    assert!(other.image_store(None).await.unwrap().is_none(), "each namespace has its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_full_is_given_room_unless_it_has_a_bound() {
    let world = World::start().await;
    let large = world.archive(&[b"manifest", &content(1, 2 << 20)]);
    let push = Push {
        name: &image("shop"),
        record: &large.record,
        archive: &large.path,
        blobs: &large.blobs,
        again: false,
        may_grow: false,
    };
    let refused = Box::pin(world.store.push(push, |_, _| ())).await.unwrap_err();
    assert!(matches!(refused, ImageError::Full { .. }) && refused.to_string().contains("nex image gc"), "{refused}");
    assert!(world.push("shop", &large).await.unwrap().grown_to.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_pushes_at_once_of_a_tag_one_is_told_of_the_other() {
    let world = World::start().await;
    let base = content(1, 3 * PART);
    let (one, two) = (world.archive(&[b"one", &base]), world.archive(&[b"two", &base]));
    let mut done = false;
    let overtaken = world.push_hearing("shop:v1", &one, |_, _| {
        if !std::mem::replace(&mut done, true) {
            tokio::task::block_in_place(|| Handle::current().block_on(world.push("shop:v1", &two))).unwrap();
        }
    });
    let overtaken = overtaken.await.unwrap_err();
    assert!(matches!(&overtaken, ImageError::Overtaken { now, .. } if *now == two.record.top.digest), "{overtaken}");
    assert_eq!(world.store.image(&image("shop:v1")).await.unwrap(), two.record);
    // The same image is not another one, and one tag is not another.
    let mut done = false;
    let same = world.push_hearing("shop:v3", &one, |_, _| {
        if !std::mem::replace(&mut done, true) {
            tokio::task::block_in_place(|| Handle::current().block_on(world.push("shop:v3", &one))).unwrap();
        }
    });
    same.await.unwrap();
    assert_eq!(world.read(one.blobs[1].blob).await.unwrap(), base);
    let pushes = futures::future::join_all((0..8).map(|number| {
        let (world, name) = (&world, format!("many:v{number}"));
        let archive = world.archive(&[b"many", &base, b"x"]);
        async move { world.push(&name, &archive).await.unwrap() }
    }));
    pushes.await;
    assert_eq!(world.collect().await.unwrap().blobs, [], "everything is used by a tag");
    assert_eq!(world.read(one.blobs[1].blob).await.unwrap(), base);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_tag_reaches_is_removed_and_what_a_push_needs_stays() {
    let world = World::start().await;
    let (base, more) = (content(1, 2 * PART), content(2, 3 * PART));
    let (old, new) = (world.archive(&[b"old", &base]), world.archive(&[b"new", &base, &more]));
    world.push("shop:v1", &old).await.unwrap();
    assert_eq!(world.collect().await.unwrap(), Collected { kept: 2, ..Collected::default() });
    world.store.untag(&image("shop:v1")).await.unwrap();
    assert!(matches!(world.store.untag(&image("shop:v1")).await, Err(ImageError::Missing { .. })));
    // Nothing has a tag now; but a push that is under way needs the base, and what it has sent already.
    let collected = Mutex::new(Vec::new());
    let pushed = world.push_hearing("shop:v2", &new, |sent, total| {
        if sent == total {
            let removed = tokio::task::block_in_place(|| Handle::current().block_on(world.collect())).unwrap();
            collected.lock().unwrap().push(removed);
        }
    });
    let pushed = pushed.await.unwrap();
    assert_eq!(pushed.there, [old.blobs[1].blob]);
    let collected = collected.into_inner().unwrap();
    assert_eq!((collected[0].blobs.as_slice(), collected[0].pushes), (&[old.blobs[0].blob][..], 1));
    for (local, wanted) in new.blobs.iter().zip([&b"new"[..], &base, &more]) {
        assert_eq!(world.read(local.blob).await.unwrap(), wanted);
    }
    let left = world.collect().await.unwrap();
    assert_eq!(left, Collected { kept: 3, ..Collected::default() }, "the push has left no note");
    world.store.untag(&image("shop:v2")).await.unwrap();
    assert_eq!(world.collect().await.unwrap().blobs.len(), 3);
    assert_eq!(world.parts().await, []);
    // What was removed is sent anew.
    assert_eq!(world.push("shop:v2", &new).await.unwrap().sent.len(), 3);
    assert_eq!(world.read(new.blobs[2].blob).await.unwrap(), more);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_was_ended_by_force_is_gone_on_with_and_in_the_end_removed() {
    let world = World::start().await;
    let large = content(3, 8 * PART);
    let archive = world.archive(&[b"manifest", b"config", &large]);
    let (sent, mut heard) = tokio::sync::watch::channel(0);
    let told = move |there, _| {
        sent.send(there).ok();
    };
    tokio::select! {
        done = world.push_hearing("shop", &archive, told) => panic!("it was to be interrupted: {done:?}"),
        reached = heard.wait_for(|there| *there >= 5 * PART as u64) => drop(reached.unwrap()),
    }
    let collected = world.collect().await.unwrap();
    assert_eq!((collected.blobs.len(), collected.unfinished, collected.pushes), (0, 0, 1), "it may still go on");
    let pushed = world.push("shop", &archive).await.unwrap();
    assert_eq!((pushed.there.len(), pushed.sent.len()), (2, 1));
    assert_eq!(world.read(archive.blobs[2].blob).await.unwrap(), large);
    assert_eq!(world.parts().await.iter().map(|(_, count)| count).sum::<usize>(), 10, "no part was sent twice");
    // Tomorrow the note counts no more.
    let tomorrow = now() + 25 * 60 * 60 * 1_000;
    let how = Collection { now_ms: tomorrow, before_ms: i64::MAX, dry_run: false };
    world.store.untag(&image("shop")).await.unwrap();
    world.jetstream().publish(format!("$O.{BUCKET}.C.begun"), "part".into()).await.unwrap().await.unwrap();
    let collected = Box::pin(world.store.collect(how)).await.unwrap();
    assert_eq!((collected.blobs.len(), collected.unfinished, collected.pushes), (3, 1, 0));
    assert_eq!(world.parts().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_write_is_no_image_and_removes_nothing() {
    let world = World::start().await;
    let archive = world.archive(&[b"manifest", &content(1, PART + 1)]);
    world.push("shop", &archive).await.unwrap();
    let blob = archive.blobs[1].blob;
    let key = format!("blobs/sha256/{}", blob.digest);
    // Names that are none, entries that are none, and one under another's subject.
    for name in ["tags/../shop:v1", "tags/Shop:v1", "tags/shop", "blobs/sha256/../x", &format!("tags/{}:v1", "a".repeat(300))] {
        world.forge(name, json!({})).await;
    }
    world.forge("tags/evil:v1", json!({"name": "tags/shop:latest", "metadata": {}})).await;
    world.jetstream().publish(format!("$O.{BUCKET}.M.x"), "junk".into()).await.unwrap().await.unwrap();
    let names: Vec<_> = world.store.images().await.unwrap().into_iter().map(|image| image.name.to_string()).collect();
    assert_eq!(names, ["shop:latest"]);
    // Parts by a pattern, and parts that are another's.
    let stranger = Digest::of(b"stranger");
    for nuid in [">", "*", "a.b", ""] {
        world.forge(&format!("blobs/sha256/{stranger}"), json!({"nuid": nuid, "size": 3, "chunks": 1})).await;
        let refused = world.read(BlobRecord { digest: stranger, size: 3 }).await.unwrap_err();
        assert!(refused.to_string().contains("has no parts"), "{refused}");
        assert_eq!(world.collect().await.unwrap().blobs.len(), 1);
    }
    let parts = world.parts().await;
    let shared = parts.iter().max_by_key(|(_, count)| *count).unwrap().0.rsplit('.').next().unwrap().to_owned();
    world.forge(&format!("blobs/sha256/{stranger}"), json!({"nuid": shared, "size": 3, "chunks": 1})).await;
    assert!(world.read(BlobRecord { digest: stranger, size: 3 }).await.unwrap_err().to_string().contains("more bytes"));
    assert_eq!(world.collect().await.unwrap().blobs.len(), 1);
    assert_eq!(world.read(blob).await.unwrap().len(), PART + 1);

    // A blob that was exchanged, and one that has vanished: told, and mended by a push.
    world.forge(&key, json!({"nuid": "short", "size": 3, "chunks": 1})).await;
    assert!(world.read(blob).await.unwrap_err().to_string().contains("another size"));
    assert_eq!(world.push("shop", &archive).await.unwrap().sent, [blob]);
    assert_eq!(world.read(blob).await.unwrap().len(), PART + 1);
    let stream = world.jetstream().get_stream(format!("OBJ_{BUCKET}")).await.unwrap();
    stream.purge().filter(format!("$O.{BUCKET}.C.>")).await.unwrap();
    let gone = world.read(blob).await.unwrap_err().to_string();
    assert!(gone.contains("has lost its parts") && gone.contains("nex image push --again"), "{gone}");
    assert_eq!(world.push("shop", &archive).await.unwrap().sent.len(), 2);
    assert_eq!(world.read(blob).await.unwrap().len(), PART + 1);

    // A tag that nobody can read: nobody knows what it needs.
    world.forge("tags/broken:v1", json!({"metadata": {"nex.image": "{}"}})).await;
    let refused = world.collect().await.unwrap_err().to_string();
    assert!(refused.contains("the tag broken:v1 cannot be read") && refused.contains("nex image rm"), "{refused}");
    assert!(world.store.images().await.unwrap()[0].record.is_err());
    world.store.untag(&image("broken:v1")).await.unwrap();
    world.collect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_sent_once_more_on_demand() {
    let world = World::start().await;
    let archive = world.archive(&[b"manifest", &content(1, PART)]);
    world.push("shop", &archive).await.unwrap();
    // The parts of the layer are others now, under the same name.
    let stream = world.jetstream().get_stream(format!("OBJ_{BUCKET}")).await.unwrap();
    for (subject, _) in world.parts().await {
        let size = stream.get_last_raw_message_by_subject(&subject).await.unwrap().payload.len();
        stream.purge().filter(&subject).await.unwrap();
        world.jetstream().publish(subject, vec![0; size].into()).await.unwrap().await.unwrap();
    }
    assert_eq!(world.read(archive.blobs[1].blob).await.unwrap(), vec![0; PART], "it is not known here that they lie");
    assert_eq!(world.push("shop", &archive).await.unwrap().sent, []);
    let Archive { record, blobs, path } = &archive;
    let again = Push { name: &image("shop"), record, archive: path, blobs, again: true, may_grow: true };
    assert_eq!(Box::pin(world.store.push(again, |_, _| ())).await.unwrap().sent.len(), 2);
    assert_eq!(world.read(archive.blobs[1].blob).await.unwrap(), content(1, PART));
    assert_eq!(world.parts().await.len(), 2, "the damaged parts are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_pushed_while_others_remove_is_whole() {
    let world = World::start().await;
    let base = content(1, PART + 1);
    let archive = world.archive(&[b"manifest", &base, b"config"]);
    let done = AtomicBool::new(false);
    let removing = async {
        let mut removed = 0;
        while !done.load(Ordering::Relaxed) {
            removed += world.collect().await.unwrap().blobs.len();
        }
        removed
    };
    let pushing = async {
        for number in 0..30 {
            let name = format!("shop:v{number}");
            world.push(&name, &archive).await.unwrap();
            for (local, wanted) in archive.blobs.iter().zip([&b"manifest"[..], &base, b"config"]) {
                assert_eq!(world.read(local.blob).await.unwrap(), wanted, "{name}");
            }
            world.store.untag(&image(&name)).await.unwrap();
        }
        done.store(true, Ordering::Relaxed);
    };
    let (removed, ()) = tokio::join!(removing, pushing);
    println!("{removed} blobs were removed meanwhile");
    world.collect().await.unwrap();
    assert_eq!(world.parts().await, []);
}
