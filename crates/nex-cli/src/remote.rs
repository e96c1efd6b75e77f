//! Images that are not on this machine: of a registry (`oci://`, `docker://`), or of the namespace, kept in NATS (`image://`).

use std::fmt;
use std::path::Path;

use nex_image::oci::Reference;
use nex_protocol::image_store::ImageName;

use crate::check::Usage;

/// How an image of a registry is told from one that lies here.
const REGISTRIES: [&str; 2] = ["oci://", "docker://"];
/// How one of the namespace is.
const STORED: &str = "image://";

/// An image elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remote {
    /// Of a registry.
    Registry(Reference),
    /// Of the namespace.
    Stored(ImageName),
}

impl Remote {
    /// The image that a text names, if it names one that is not here.
    pub(crate) fn of(text: &Path) -> Result<Option<Self>, Usage> {
        let Some(text) = text.to_str() else { return Ok(None) };
        if let Some(name) = text.strip_prefix(STORED) {
            let wrong = |error| Usage(format!("{text}: {error}; next: name it as in image://shop:v3"));
            return Ok(Some(Self::Stored(name.parse().map_err(wrong)?)));
        }
        let named = REGISTRIES.iter().find_map(|scheme| text.strip_prefix(scheme));
        let wrong = |error| Usage(format!("{text}: {error}; next: name it as in oci://ghcr.io/me/shop:v3"));
        Ok(named.map(str::parse).transpose().map_err(wrong)?.map(Self::Registry))
    }

    /// Whether a text names one, well or badly.
    pub(crate) fn is_named(text: &Path) -> bool {
        text.to_str().is_some_and(|text| REGISTRIES.iter().chain([&STORED]).any(|scheme| text.starts_with(scheme)))
    }

    /// The last part of its name, and its tag.
    pub(crate) fn name_and_tag(&self) -> (&str, &str) {
        let (name, tag) = match self {
            Self::Registry(reference) => (&reference.repository, &reference.tag),
            Self::Stored(image) => (&image.name, &image.tag),
        };
        (name.rsplit('/').next().unwrap_or_default(), tag)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Stored(image) => write!(f, "{STORED}{image}"),
        }
    }
}

/// Parses the name of an image of the namespace, with or without its scheme.
pub(crate) fn stored_name(text: &str) -> Result<ImageName, String> {
    let name = text.strip_prefix(STORED).unwrap_or(text);
    if name.contains("://") {
        return Err(
            "it is no image of the namespace; next: name it as `nex image ls` does, or push it first with `nex image push`"
                .into(),
        );
    }
    name.parse().map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_elsewhere_is_told_from_files_and_layouts() {
        let named = |text: &str| Remote::of(Path::new(text)).unwrap().map(|found| found.to_string());
        assert_eq!(named("oci://ghcr.io/me/shop:v3").as_deref(), Some("ghcr.io/me/shop:v3"));
        assert_eq!(named("docker://alpine").as_deref(), Some("registry-1.docker.io/library/alpine:latest"));
        assert_eq!(named("image://me/shop:v3").as_deref(), Some("image://me/shop:v3"));
        for here in ["oci:shop:v3", "shop.tar", "nats://NEXCLIFILES/shop", "image:shop"] {
            assert_eq!(named(here), None, "{here}");
        }
        let refused = |text: &str| Remote::of(Path::new(text)).unwrap_err().to_string();
        assert!(refused("oci://GHCR/x y").contains("next: name it as in oci://"));
        for hostile in ["image://", "image://../x", "image://Shop", "image://shop:v1/..", "image://localhost:5000/shop:v1"] {
            assert!(refused(hostile).contains("next: name it as in image://"), "{hostile}");
        }
        assert_eq!(stored_name("image://shop").unwrap(), stored_name("shop:latest").unwrap());
        assert!(stored_name("oci://ghcr.io/me/shop:v3").unwrap_err().contains("nex image push"));
    }
}
