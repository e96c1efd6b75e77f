//! The upload of a workload's file, with its bar; the same for `devrun` and `apply`.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use nex_client::artifact::{
    ArtifactError, DEFAULT_BUCKET, DEFAULT_BUCKET_BYTES, LocalFile, NewBucket, Upload, Uploaded, key, stored,
};
use nex_protocol::id::WorkloadName;

use crate::output::Output;
use crate::progress;
use crate::session::Session;
use crate::sniff;

/// Flags about the bucket for uploads.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct BucketArgs {
    /// Bound of the bucket for uploads, in bytes; it is made with it, or given it if it is full [default: 104857600, and more when needed]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i64).range(1..))]
    bucketmaxbytes: Option<i64>,
    /// On how many servers the bucket for uploads is kept, when it is made
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    bucket_replicas: u8,
}

impl Default for BucketArgs {
    fn default() -> Self {
        Self { bucketmaxbytes: None, bucket_replicas: 1 }
    }
}

/// Versions of a workload's file that stay when room is made, even if none of them runs.
const KEPT: usize = 1;
/// Time in which somebody may upload a file and has not deployed it yet.
const FRESH: Duration = Duration::from_secs(600);

/// Uploads a file for a workload, unless the same bytes are there. A full bucket is given room: what nothing uses is removed, then its
/// bound is raised.
pub(crate) async fn upload(
    file: LocalFile,
    bucket: BucketArgs,
    name: &WorkloadName,
    session: &Session,
    output: &Output,
) -> anyhow::Result<Uploaded> {
    let mut location =
        key::location(DEFAULT_BUCKET, session.client.namespace(), name, &file.digest).context("the name makes no key")?;
    if sniff::is_typescript(&file.path) {
        location.key.push_str(key::TYPESCRIPT);
    }
    let new_bucket =
        NewBucket { bytes: bucket.bucketmaxbytes.unwrap_or(DEFAULT_BUCKET_BYTES), replicas: usize::from(bucket.bucket_replicas) };
    let upload = Upload { location, jetstream_domain: session.jetstream_domain.clone(), new_bucket, file };
    let mut full = match Box::pin(send(&upload, session, output)).await {
        Err(full @ ArtifactError::Full { .. }) => full,
        done => return Ok(done?),
    };
    output.note(format_args!("Bucket {DEFAULT_BUCKET} is full"));
    if bucket.bucketmaxbytes.is_none() && Box::pin(remove_unused(session, output)).await? > 0 {
        full = match Box::pin(send(&upload, session, output)).await {
            Err(full @ ArtifactError::Full { .. }) => full,
            done => return Ok(done?),
        };
    }
    let ArtifactError::Full { used, limit, needed, .. } = &full else { return Err(full.into()) };
    // Room for the next version, too.
    let enough = i64::try_from(used.saturating_add(needed.saturating_mul(2))).unwrap_or(i64::MAX);
    let bound = bucket.bucketmaxbytes.unwrap_or(enough);
    if bound <= *limit {
        return Err(full.into());
    }
    session.client.bound_bucket(DEFAULT_BUCKET, bound, session.jetstream_domain.as_deref()).await.context(full)?;
    output.note(format_args!("Bucket {DEFAULT_BUCKET} may hold {bound} bytes now"));
    Ok(Box::pin(send(&upload, session, output)).await?)
}

async fn send(upload: &Upload, session: &Session, output: &Output) -> Result<Uploaded, ArtifactError> {
    let bar = progress::upload_bar(output);
    let uploaded = session.client.upload(upload, |sent, total| {
        bar.set_length(total);
        bar.set_position(sent);
    });
    let uploaded = Box::pin(uploaded).await;
    bar.finish_and_clear();
    let uploaded = uploaded?;
    let how = if uploaded.was_there { "is there already, unchanged" } else { "uploaded" };
    let resumed = match uploaded.resumed_bytes {
        0 => String::new(),
        bytes => format!(", {bytes} of them by an upload that was interrupted"),
    };
    output.note(format_args!("{} {how} ({} bytes{resumed})", upload.location, uploaded.artifact.bytes));
    Ok(uploaded)
}

/// Removes what no workload of the namespace uses; says how many artifacts that were.
async fn remove_unused(session: &Session, output: &Output) -> anyhow::Result<usize> {
    let domain = session.jetstream_domain.as_deref();
    let running = session.client.workloads(None, session.discovery_timeout).await?;
    let all = session.client.artifacts(DEFAULT_BUCKET, domain).await?;
    let before = Timestamp::now().as_millisecond().saturating_sub_unsigned(u64::try_from(FRESH.as_millis()).unwrap_or(u64::MAX));
    let unused = stored::unused(&all, session.client.namespace(), &running, KEPT, before);
    for artifact in &unused {
        session.client.remove_artifact(&artifact.location, domain).await?;
    }
    if !unused.is_empty() {
        let bytes: u64 = unused.iter().map(|artifact| artifact.bytes).sum();
        output.note(format_args!("Removed {} old artifacts ({bytes} bytes) that nothing uses", unused.len()));
    }
    Ok(unused.len())
}
