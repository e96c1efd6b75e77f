//! `nex image push`: an image is packed as for a deploy, and its blobs go one by one into the bucket of the namespace.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use indicatif::HumanBytes;
use nex_client::artifact::NewBucket;
use nex_client::image::{DEFAULT_BUCKET_BYTES, LocalBlob, Push, Pushed};
use nex_image::oci::{Contents, ImageSource, Packed};
use nex_protocol::image_store::{BlobRecord, ImageName, ImageRecord};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::check::Usage;
use crate::env::Env;
use crate::local::default_name;
use crate::output::Output;
use crate::progress::{steps_bar, upload_bar};
use crate::registry::{self, PulledImage, RegistryArgs};
use crate::remote::{Remote, stored_name};
use crate::session::Session;

/// `nex image push`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex image push oci://ghcr.io/me/shop:v3           as shop:v3, with the login of docker or podman
  nex image push docker://alpine:3.22 base/alpine:3.22 --arch amd64 --arch arm64
  nex image push ./shop.tar shop:v3                 by 'docker save'
  nex image push image://shop:v3 shop:stable        another tag of the same image
  nex devrun image://shop:v3                        runs it, with no registry in reach")]
pub(crate) struct PushArgs {
    /// An image of a registry (oci://HOST/NAME:TAG), the directory of a layout, or an archive; oci:DIR:TAG, oci-archive:FILE:TAG and
    /// docker-archive:FILE:TAG name one of several
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// What it is to be called [default: the last part of its name, and its tag]
    #[arg(value_name = "NAME:TAG", value_parser = stored_name)]
    name: Option<ImageName>,
    /// For which processors, of an image of a registry: amd64, arm64, …, or all; repeatable [default: this machine's]
    #[arg(long, value_name = "ARCH")]
    arch: Vec<String>,
    /// Send all blobs, also those that are there: some may be damaged
    #[arg(long)]
    again: bool,
    /// Bound of the bucket, in bytes; it is made with it [default: 1073741824, and more when needed]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i64).range(1..))]
    max_bytes: Option<i64>,
    /// On how many servers the bucket is kept, if it has to be made
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl PushArgs {
    fn image_name(&self, remote: Option<&Remote>) -> Result<ImageName, Usage> {
        if let Some(name) = &self.name {
            return match name.digest {
                None => Ok(name.clone()),
                Some(_) => Err(Usage(format!("{name}: the digest follows from the image; next: leave @sha256:… out"))),
            };
        }
        let named = match remote {
            Some(remote) => {
                let (name, tag) = remote.name_and_tag();
                ImageName::new(name, tag)
            }
            None => {
                let name = default_name(&self.image)?;
                let name = [".gz", ".zst", ".tar"].iter().fold(name.as_str(), |name, end| name.strip_suffix(end).unwrap_or(name));
                name.parse()
            }
        };
        named.map_err(|error| Usage(format!("{error}; next: say what it is to be called: nex image push IMAGE NAME:TAG")))
    }

    fn architectures(&self) -> Vec<String> {
        match self.arch.iter().any(|arch| arch == "all") {
            true => Vec::new(),
            false if self.arch.is_empty() => vec![nex_image::oci::Platform::host().architecture],
            false => self.arch.clone(),
        }
    }
}

/// What is to be pushed: an archive, which goes with this if it is only for the push.
struct Archive {
    path: PathBuf,
    platforms: Vec<String>,
    _packed: Option<NamedTempFile>,
}

fn local(image: &Path) -> Result<ImageSource, Usage> {
    let source = image.to_str().and_then(ImageSource::of);
    source.filter(|source| source.path().is_some_and(Path::exists)).ok_or_else(|| {
        let why = "is no OCI image; next: name one of a registry (oci://HOST/NAME:TAG), the directory of a layout, or an archive by \
                   'docker save' or 'skopeo copy … oci-archive:FILE'";
        Usage(format!("{} {why}", image.display()))
    })
}

fn pack(source: &ImageSource, image: &Path, output: &Output) -> anyhow::Result<Archive> {
    let file = NamedTempFile::with_prefix("nex-image-").context("cannot make a file to pack the image into")?;
    let packed = tokio::task::block_in_place(|| source.pack(file.as_file(), &mut steps_bar(output)));
    let Packed { platforms, .. } = packed.with_context(|| format!("cannot use {} as an image", image.display()))?;
    let platforms = platforms.iter().map(|platform| format!("{}/{}", platform.os, platform.architecture)).collect();
    Ok(Archive { path: file.path().to_owned(), platforms, _packed: Some(file) })
}

/// The archive's blobs, and what the tag is to say.
fn record(archive: &Archive) -> anyhow::Result<(ImageRecord, Vec<LocalBlob>)> {
    let contents = tokio::task::block_in_place(|| Contents::of(&archive.path))?;
    let mut blobs = Vec::new();
    for packed in &contents.blobs {
        let blob = BlobRecord { digest: packed.digest.hex().parse()?, size: packed.size };
        blobs.push(LocalBlob { blob, offset: packed.offset });
    }
    let is_top = |local: &&LocalBlob| local.blob.digest.to_string() == contents.digest.hex();
    let top = blobs.iter().find(is_top).context("its manifest is not among its blobs")?.blob;
    let all = blobs.iter().map(|local| local.blob).collect();
    let record = ImageRecord { top, media_type: contents.media_type, platforms: archive.platforms.clone(), blobs: all };
    Ok((record, blobs))
}

/// Pushes.
pub(super) async fn run(args: &PushArgs, session: &Session, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let remote = Remote::of(&args.image)?.map_or_else(|| local(&args.image).map(Err), |remote| Ok(Ok(remote)))?;
    let name = args.image_name(remote.as_ref().ok())?;
    let archive = match &remote {
        Err(source) => {
            args.registry.is_of_registry(args.image.display())?;
            pack(source, &args.image, output)?
        }
        Ok(remote) => {
            let how = (&args.registry, env);
            let pulled = Box::pin(registry::pull(remote, args.architectures(), how, session, output)).await?;
            let PulledImage { path, architectures } = pulled;
            let platforms = architectures.iter().map(|architecture| format!("linux/{architecture}")).collect();
            Archive { path, platforms, _packed: None }
        }
    };
    let (record, blobs) = record(&archive)?;
    let domain = session.jetstream_domain.as_deref();
    let new = NewBucket { bytes: args.max_bytes.unwrap_or(DEFAULT_BUCKET_BYTES), replicas: usize::from(args.replicas) };
    let store = Box::pin(session.client.make_image_store(new, domain)).await?;
    let bar = upload_bar(output);
    let push = Push {
        name: &name,
        record: &record,
        archive: &archive.path,
        blobs: &blobs,
        again: args.again,
        may_grow: args.max_bytes.is_none(),
    };
    let pushed = Box::pin(store.push(push, |sent, total| {
        bar.set_length(total);
        bar.set_position(sent);
    }));
    let pushed = pushed.await;
    bar.finish_and_clear();
    tell(&name, &pushed?, store.bucket(), output)
}

fn tell(name: &ImageName, pushed: &Pushed, bucket: &str, output: &mut Output) -> anyhow::Result<()> {
    let Pushed { record, sent, there, replaced, grown_to } = pushed;
    let bytes = |blobs: &[BlobRecord]| blobs.iter().map(|blob| blob.size).sum::<u64>();
    if output.is_json() {
        let listed = |blobs: &[BlobRecord]| blobs.iter().map(blob_json).collect::<Vec<_>>();
        return output.document(&json!({
            "url": format!("image://{name}"), "name": name.name, "tag": name.tag, "digest": format!("sha256:{}", record.top.digest),
            "platforms": record.platforms, "bytes": record.bytes(), "sent": listed(sent), "there": listed(there),
            "replaced": replaced.map(|digest| format!("sha256:{digest}")), "bucket": bucket,
        }));
    }
    if let Some(bound) = grown_to {
        output.note(format_args!("Bucket {bucket} may hold {bound} bytes now"));
    }
    for (blobs, how) in [(there, "already there"), (sent, "sent")] {
        for blob in blobs {
            output.note(format_args!("{}  {how} ({})", short(&blob.digest), HumanBytes(blob.size)));
        }
    }
    let (there_bytes, sent_bytes) = (HumanBytes(bytes(there)), HumanBytes(bytes(sent)));
    let instead = replaced.map_or_else(String::new, |digest| format!(", instead of {}", short(&digest)));
    output.line(format_args!(
        "Pushed image://{name} (sha256:{}){instead}: {} blobs sent ({sent_bytes}), {} already there ({there_bytes})",
        record.top.digest,
        sent.len(),
        there.len(),
    ))
}

pub(super) fn short(digest: &nex_protocol::digest::Digest) -> String {
    format!("sha256:{}", digest.to_string().get(..12).unwrap_or_default())
}

pub(super) fn blob_json(blob: &BlobRecord) -> Value {
    json!({ "digest": format!("sha256:{}", blob.digest), "bytes": blob.size })
}
