//! `nex image pull`: an image of the namespace becomes an archive or a layout, each blob verified on the way.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use nex_image::oci::write_layout;
use nex_protocol::image_store::ImageName;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::output::Output;
use crate::progress::steps_bar;
use crate::registry::pack_stored;
use crate::remote::stored_name;
use crate::session::Session;

/// `nex image pull`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex image pull shop:v3 -o shop.tar                then: docker load -i shop.tar
  nex image pull shop:v3 -o oci:shop                then: skopeo copy oci:shop:v3 …")]
pub(crate) struct PullArgs {
    /// Name and tag, as `nex image ls` shows them; with @sha256:… only if the tag means that
    #[arg(value_name = "NAME:TAG", value_parser = stored_name)]
    name: ImageName,
    /// Where to: a file for an archive (FILE, oci-archive:FILE), or a new directory for a layout (DIR/, oci:DIR)
    #[arg(long, short, value_name = "FILE|LAYOUT")]
    output: String,
}

/// Where an image is written to.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Archive(PathBuf),
    Layout(PathBuf),
}

impl Target {
    fn of(text: &str) -> Self {
        if let Some(dir) = text.strip_prefix("oci:") {
            return Self::Layout(dir.into());
        }
        if let Some(file) = text.strip_prefix("oci-archive:") {
            return Self::Archive(file.into());
        }
        match text.ends_with('/') || Path::new(text).is_dir() {
            true => Self::Layout(text.into()),
            false => Self::Archive(text.into()),
        }
    }
}

/// Pulls.
pub(super) async fn run(args: &PullArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let store = session.client.image_store(session.jetstream_domain.as_deref()).await?;
    let store = store.ok_or_else(|| session.client.no_image(&args.name))?;
    let record = store.image(&args.name).await?;
    let target = Target::of(&args.output);
    let (Target::Archive(path) | Target::Layout(path)) = &target;
    let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = NamedTempFile::new_in(beside);
    let file = file.with_context(|| format!("cannot write {}; next: check that its directory exists", path.display()))?;
    let mut report = steps_bar(output);
    let packed = pack_stored(&store, &record, Vec::new(), file.as_file(), &mut report);
    packed.with_context(|| format!("cannot pull image://{}", args.name))?;
    let what = match &target {
        Target::Archive(path) => {
            let failed = || format!("cannot write {}; next: check that it is writable", path.display());
            // As other files that are made here are, not as temporary ones.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            file.as_file().set_permissions(mode).with_context(failed)?;
            file.persist(path).with_context(failed)?;
            "an archive"
        }
        Target::Layout(dir) => {
            let written = tokio::task::block_in_place(|| write_layout(file.path(), dir, &args.name.tag, &mut report));
            written.with_context(|| format!("cannot write the layout {}", dir.display()))?;
            "a layout"
        }
    };
    drop(report);
    if output.is_json() {
        return output.document(&json!({
            "url": format!("image://{}", args.name), "digest": format!("sha256:{}", record.top.digest), "path": path,
            "platforms": record.platforms, "bytes": record.bytes(),
        }));
    }
    output.line(format_args!("Wrote {}: {what} of image://{} (sha256:{})", path.display(), args.name, record.top.digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_what_is_to_be_written() {
        assert_eq!(Target::of("a/shop.tar"), Target::Archive("a/shop.tar".into()));
        assert_eq!(Target::of("oci-archive:shop"), Target::Archive("shop".into()));
        assert_eq!(Target::of("oci:shop"), Target::Layout("shop".into()));
        assert_eq!(Target::of("shop/"), Target::Layout("shop/".into()));
        assert_eq!(Target::of("/"), Target::Layout("/".into()));
    }
}
