//! Uploads that are interrupted, that meet, and that find what is not theirs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::path::PathBuf;

use async_nats::jetstream;
use futures::StreamExt as _;
use nex_client::Client;
use nex_client::artifact::{ArtifactError, LocalFile, NewBucket, Upload, Uploaded};
use nex_protocol::deploy::Location;
use support::Nats;
use tokio::io::AsyncReadExt as _;

/// Size of a part on the wire.
const PART: usize = 128 * 1024;

struct World {
    nats: Nats,
    directory: tempfile::TempDir,
    client: Client,
}

impl World {
    async fn start() -> Self {
        let nats = Nats::start(true).await;
        let client = Client::new(async_nats::connect(&nats.url).await.unwrap(), "default".parse().unwrap());
        Self { nats, directory: tempfile::tempdir().unwrap(), client }
    }

    fn file(&self, content: &[u8]) -> PathBuf {
        let path = self.directory.path().join("file");
        std::fs::write(&path, content).unwrap();
        path
    }

    async fn upload_of(&self, path: &PathBuf) -> Upload {
        let location = Location::new("B", "default/a/1").unwrap();
        let file = LocalFile::read(path).await.unwrap();
        Upload { location, jetstream_domain: None, new_bucket: NewBucket { bytes: -1, replicas: 1 }, file }
    }

    async fn upload(&self, upload: &Upload) -> Result<Uploaded, ArtifactError> {
        Box::pin(self.client.upload(upload, |_, _| ())).await
    }

    /// Uploads until so many bytes are there, and is interrupted.
    async fn interrupted(&self, upload: &Upload, bytes: u64) {
        let (sent, mut heard) = tokio::sync::watch::channel(0);
        let told = move |there, _| {
            sent.send(there).ok();
        };
        tokio::select! {
            done = Box::pin(self.client.upload(upload, told)) => panic!("it was to be interrupted: {done:?}"),
            reached = heard.wait_for(|there| *there >= bytes) => drop(reached.unwrap()),
        }
    }

    /// What any client of the object store reads, which verifies the digest.
    async fn read(&self) -> Vec<u8> {
        let store = jetstream::new(self.client.nats().clone()).get_object_store("B").await.unwrap();
        let mut content = Vec::new();
        store.get("default/a/1").await.unwrap().read_to_end(&mut content).await.unwrap();
        content
    }

    /// How many parts lie in the bucket, under which names.
    async fn parts(&self) -> Vec<(String, usize)> {
        let stream = jetstream::new(self.client.nats().clone()).get_stream("OBJ_B").await.unwrap();
        let counts: Vec<_> = stream.info_with_subjects("$O.B.C.>").await.unwrap().collect().await;
        counts.into_iter().map(Result::unwrap).collect()
    }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at / 7 % 251).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_interrupted_is_gone_on_with() {
    let world = World::start().await;
    let bytes = content(20 * PART + 77);
    let upload = world.upload_of(&world.file(&bytes)).await;
    world.interrupted(&upload, 8 * PART as u64).await;
    let uploaded = world.upload(&upload).await.unwrap();
    assert!(!uploaded.was_there && uploaded.resumed_bytes >= 8 * PART as u64, "{uploaded:?}");
    assert_eq!(world.read().await, bytes);
    assert_eq!(world.parts().await.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [21], "no part was sent twice");
    assert!(world.upload(&upload).await.unwrap().was_there);
    // Removed and uploaded again, it is there again.
    world.client.remove_artifact(&upload.location, None).await.unwrap();
    assert_eq!(world.upload(&upload).await.unwrap().resumed_bytes, 0);
    assert_eq!(world.read().await, bytes);
    drop(world.nats);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_uploads_of_one_file_make_one_object() {
    let world = World::start().await;
    let bytes = content(30 * PART);
    let upload = world.upload_of(&world.file(&bytes)).await;
    // The bucket is made by neither of them: that is another race.
    world.interrupted(&upload, PART as u64).await;
    let other = Client::new(async_nats::connect(&world.nats.url).await.unwrap(), "default".parse().unwrap());
    let (first, second) = tokio::join!(world.upload(&upload), Box::pin(other.upload(&upload, |_, _| ())));
    first.unwrap();
    second.unwrap();
    assert_eq!(world.read().await, bytes);
    assert_eq!(world.parts().await.iter().map(|(_, count)| *count).sum::<usize>(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_beginning_of_the_file_is_not_gone_on_with_and_a_file_that_changes_leaves_nothing() {
    let world = World::start().await;
    let bytes = content(5 * PART);
    let path = world.file(&bytes);
    let upload = world.upload_of(&path).await;
    world.interrupted(&upload, 2 * PART as u64).await;
    // Somebody who may write to the bucket adds a part.
    let subject = world.parts().await[0].0.clone();
    jetstream::new(world.client.nats().clone()).publish(subject, "garbage".into()).await.unwrap().await.unwrap();
    assert_eq!(world.upload(&upload).await.unwrap().resumed_bytes, 0);
    assert_eq!(world.read().await, bytes);

    let before = world.parts().await.len();
    let other = Upload { location: Location::new("B", "default/b/1").unwrap(), ..upload };
    for changed in [content(5 * PART - 1), content(5 * PART + 1), vec![0; 5 * PART]] {
        std::fs::write(&path, changed).unwrap();
        assert!(matches!(world.upload(&other).await, Err(ArtifactError::Changed(_))));
    }
    assert_eq!(world.parts().await.len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_an_upload_that_nobody_went_on_with_are_found_and_removed() {
    let world = World::start().await;
    let upload = world.upload_of(&world.file(&content(5 * PART))).await;
    world.upload(&upload).await.unwrap();
    let begun = Upload { location: Location::new("B", "default/b/1").unwrap(), ..upload.clone() };
    world.interrupted(&begun, 2 * PART as u64).await;
    let unfinished = async |before_ms| Box::pin(world.client.unfinished_uploads("B", before_ms, None)).await.unwrap();
    assert_eq!(unfinished(0).await, [], "it may be under way still");
    let found = unfinished(i64::MAX).await;
    assert!(found.len() == 1 && found[0].parts >= 2, "{found:?}");
    world.client.remove_unfinished("B", &found[0], None).await.unwrap();
    assert_eq!(unfinished(i64::MAX).await, []);
    assert_eq!(world.read().await, content(5 * PART), "what is whole stays");
}
