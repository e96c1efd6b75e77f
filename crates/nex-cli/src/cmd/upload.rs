//! The upload of a workload's file, with its bar; the same for `devrun` and `apply`.

use std::path::Path;

use anyhow::Context as _;
use nex_client::artifact::{DEFAULT_BUCKET, Upload, Uploaded};
use nex_protocol::deploy::Location;
use nex_protocol::id::WorkloadName;

use crate::output::Output;
use crate::progress;
use crate::session::Session;

/// Uploads a file under the workload's name, unless the same bytes are there.
pub(crate) async fn upload(
    file: &Path,
    bucket_bytes: i64,
    name: &WorkloadName,
    session: &Session,
    output: &Output,
) -> anyhow::Result<Uploaded> {
    let location = Location::new(DEFAULT_BUCKET, name.as_str()).context("the name makes no object key")?;
    let jetstream_domain = session.jetstream_domain.clone();
    let upload = Upload { location, jetstream_domain, bucket_bytes, file: file.to_owned() };
    let bar = progress::upload_bar(output);
    let uploaded = session.client.upload(&upload, |sent, total| {
        bar.set_length(total);
        bar.set_position(sent);
    });
    let uploaded = Box::pin(uploaded).await;
    bar.finish_and_clear();
    let uploaded = uploaded?;
    let how = if uploaded.was_there { "is there already, unchanged" } else { "uploaded" };
    output.note(format_args!("{} {how} ({} bytes)", upload.location, uploaded.artifact.bytes));
    Ok(uploaded)
}
