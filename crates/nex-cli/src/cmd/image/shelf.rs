//! `nex image ls`, `rm` and `gc`: what is there, and its removal.

use std::time::Duration;

use clap::Args;
use indicatif::HumanBytes;
use jiff::Timestamp;
use nex_client::image::{Collection, TaggedImage};
use nex_protocol::image_store::{ImageName, bucket};
use serde_json::{Value, json};

use super::push::{blob_json, short};
use crate::check;
use crate::cmd::ps::ago;
use crate::output::Output;
use crate::remote::stored_name;
use crate::session::Session;
use crate::table::{Column, titled};

/// `nex image rm`
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Name and tag, as `nex image ls` shows them; with @sha256:… only if the tag means that; repeatable
    #[arg(value_name = "NAME:TAG", required = true, value_parser = stored_name)]
    names: Vec<ImageName>,
}

/// `nex image gc`
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Only what was pushed longer ago than this
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = check::duration)]
    older_than: Duration,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn ls(session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let store = session.client.image_store(session.jetstream_domain.as_deref()).await?;
    let images = match &store {
        Some(store) => Box::pin(store.images()).await?,
        None => Vec::new(),
    };
    if output.is_json() {
        return output.document(&images.iter().map(as_json).collect::<Vec<_>>());
    }
    if images.is_empty() {
        return output.line(format_args!("No images in namespace {}", session.client.namespace()));
    }
    let columns = [
        Column::left("Name"),
        Column::left("Tag"),
        Column::left("Digest"),
        Column::left("Platforms"),
        Column::right("Size"),
        Column::right("Pushed"),
    ];
    let now = Timestamp::now();
    let row = |image: &TaggedImage| {
        let pushed = format!("{} ago", ago(image.pushed_ms / 1_000, now));
        let (digest, platforms, size) = match &image.record {
            Ok(record) => (short(&record.top.digest), record.platforms.join(" "), HumanBytes(record.bytes()).to_string()),
            Err(why) => (why.clone(), String::new(), String::new()),
        };
        vec![image.name.name.clone(), image.name.tag.clone(), digest, platforms, size, pushed]
    };
    output.table(&titled("Images", &columns, images.iter().map(row)))
}

fn as_json(image: &TaggedImage) -> Value {
    let record = image.record.as_ref().ok();
    json!({
        "url": format!("image://{}", image.name), "name": image.name.name, "tag": image.name.tag, "pushed": image.pushed_ms / 1_000,
        "digest": record.map(|record| format!("sha256:{}", record.top.digest)), "platforms": record.map(|record| &record.platforms),
        "bytes": record.map(nex_protocol::image_store::ImageRecord::bytes), "blobs": record.map(|record| record.blobs.len()),
        "error": image.record.as_ref().err(),
    })
}

pub(super) async fn rm(args: &RmArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let store = session.client.image_store(session.jetstream_domain.as_deref()).await?;
    for name in &args.names {
        let Some(store) = &store else { return Err(session.client.no_image(name).into()) };
        store.untag(name).await?;
        output.note(format_args!("Removed image://{name}; `nex image gc` frees what no other image needs"));
    }
    let names: Vec<_> = args.names.iter().map(|name| format!("image://{name}")).collect();
    if output.is_json() { output.document(&json!({ "removed": names })) } else { Ok(()) }
}

pub(super) async fn gc(args: &GcArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let store = session.client.image_store(session.jetstream_domain.as_deref()).await?;
    let now_ms = Timestamp::now().as_millisecond();
    let before_ms = now_ms.saturating_sub_unsigned(u64::try_from(args.older_than.as_millis()).unwrap_or(u64::MAX));
    let collected = match &store {
        Some(store) => Box::pin(store.collect(Collection { now_ms, before_ms, dry_run: args.dry_run })).await?,
        None => nex_client::image::Collected::default(),
    };
    let bytes: u64 = collected.blobs.iter().map(|blob| blob.size).sum();
    if output.is_json() {
        return output.document(&json!({
            "dry_run": args.dry_run, "removed": collected.blobs.iter().map(blob_json).collect::<Vec<_>>(), "bytes": bytes,
            "kept": collected.kept, "unfinished": collected.unfinished, "pushes": collected.pushes,
            "bucket": bucket(session.client.namespace()),
        }));
    }
    let would = if args.dry_run { "would be " } else { "" };
    let (count, all) = (collected.blobs.len(), collected.blobs.len() + collected.kept);
    output.line(format_args!("{count} of {all} blobs ({bytes} bytes) {would}removed"))?;
    if collected.unfinished > 0 {
        output.line(format_args!("{} blobs whose push was never finished {would}removed", collected.unfinished))?;
    }
    match collected.pushes {
        0 => Ok(()),
        pushes => output.line(format_args!("{pushes} pushes are under way, or were ended by force today; what they need stays")),
    }
}
