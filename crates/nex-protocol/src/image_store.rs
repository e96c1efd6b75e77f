//! Images kept in NATS: what they are called, where they lie in the bucket of their namespace, and what is known of one by its tag.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::Namespace;

/// Tag of a name without one.
pub const DEFAULT_TAG: &str = "latest";
/// Key in an object's metadata under which the record of an image stands.
pub const RECORD: &str = "nex.image";
/// Most blobs of one image: manifests, configurations, layers.
pub const MAX_BLOBS: usize = 4_000;
/// Longest record, bytes.
const MAX_RECORD: usize = 900 * 1024;
/// Most bytes of an image.
const MAX_BYTES: u64 = 64 << 30;
/// Longest name, characters.
const MAX_NAME: usize = 255;
/// Longest tag, characters.
const MAX_TAG: usize = 128;
/// Most platforms of an image.
const MAX_PLATFORMS: usize = 200;
/// Longest name of a platform or of a type, characters.
const MAX_WORD: usize = 128;

const BLOBS: &str = "blobs/sha256/";
const TAGS: &str = "tags/";
const PUSHES: &str = "pushes/";

/// Bucket of a namespace's images.
#[must_use]
pub fn bucket(namespace: &Namespace) -> String {
    format!("NEXIMAGES_{namespace}")
}

/// Where something of an image lies in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A manifest, an index, a configuration or a layer: `blobs/sha256/<hex>`.
    Blob(Digest),
    /// What a tag means: `tags/<name>:<tag>`.
    Tag(ImageName),
    /// What a push that is under way needs: `pushes/<any>`.
    Push(String),
}

impl Key {
    /// Reads the name of an object; anybody may have given it.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        if let Some(hex) = text.strip_prefix(BLOBS) {
            let digest: Digest = hex.parse().ok()?;
            return (digest.to_string() == hex).then_some(Self::Blob(digest));
        }
        if let Some(id) = text.strip_prefix(PUSHES) {
            let is_plain = (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
            return is_plain.then(|| Self::Push(id.to_owned()));
        }
        let name: ImageName = text.strip_prefix(TAGS)?.parse().ok()?;
        (Self::Tag(name.clone()).to_string() == text).then_some(Self::Tag(name))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(digest) => write!(f, "{BLOBS}{digest}"),
            Self::Tag(name) => write!(f, "{TAGS}{}:{}", name.name, name.tag),
            Self::Push(id) => write!(f, "{PUSHES}{id}"),
        }
    }
}

/// The name of an image in its namespace: `NAME[:TAG][@sha256:DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName {
    /// Its name: words of lower-case letters and digits, with `.`, `_`, `-` and `/` between them.
    pub name: String,
    /// Its tag.
    pub tag: String,
    /// What the tag has to mean, if that was said.
    pub digest: Option<Digest>,
}

/// A text that is no name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidImageName {
    /// The name.
    #[error("'{0}' is no name of an image: lower-case letters and digits, with '.', '_', '-' and '/' between them, 255 at most")]
    Name(String),
    /// The tag.
    #[error("'{0}' is no tag: letters, digits, '.', '_' and '-', 128 at most, not '.' or '-' first")]
    Tag(String),
    /// The digest.
    #[error("'{0}' is no digest: sha256: and 64 hexadecimal digits")]
    Digest(String),
}

impl ImageName {
    /// A name and a tag.
    ///
    /// # Errors
    /// [`InvalidImageName`]
    pub fn new(name: &str, tag: &str) -> Result<Self, InvalidImageName> {
        let shown = |text: &str| text.chars().take(80).collect();
        if name.len() > MAX_NAME || !name.split('/').all(is_component) {
            return Err(InvalidImageName::Name(shown(name)));
        }
        let is_tag = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !(1..=MAX_TAG).contains(&tag.len()) || !is_tag || tag.starts_with(['.', '-']) {
            return Err(InvalidImageName::Tag(shown(tag)));
        }
        Ok(Self { name: name.to_owned(), tag: tag.to_owned(), digest: None })
    }
}

impl FromStr for ImageName {
    type Err = InvalidImageName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (text, digest) = match text.split_once('@') {
            None => (text, None),
            Some((text, digest)) => {
                let parsed = digest.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
                (text, Some(parsed.ok_or_else(|| InvalidImageName::Digest(digest.chars().take(80).collect()))?))
            }
        };
        let (name, tag) = text.split_once(':').unwrap_or((text, DEFAULT_TAG));
        Ok(Self { digest, ..Self::new(name, tag)? })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)?;
        self.digest.map_or(Ok(()), |digest| write!(f, "@sha256:{digest}"))
    }
}

fn is_component(part: &str) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (first, last) = (part.as_bytes().first(), part.as_bytes().last());
    first.is_some_and(is_plain)
        && last.is_some_and(is_plain)
        && !part.contains("..")
        && part.bytes().all(|byte| is_plain(&byte) || b"._-".contains(&byte))
}

/// A blob of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlobRecord {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
}

/// What a tag means, and all that this image needs. *Trust:* the word of whoever may write into the bucket; each blob is verified when it
/// is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its manifest, or the index of its manifests.
    pub top: BlobRecord,
    /// Type of that, as the registry or the layout said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it can run on: `linux/amd64`.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// All blobs, the first one among them.
    pub blobs: Vec<BlobRecord>,
}

/// A record that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRecord {
    /// It is none.
    #[error("it is no record of an image")]
    Json(#[from] serde_json::Error),
    /// It goes beyond a bound, or contradicts itself.
    #[error("{0}")]
    Refused(&'static str),
}

impl ImageRecord {
    /// Reads one, within bounds.
    ///
    /// # Errors
    /// [`InvalidRecord`]
    pub fn read(text: &str) -> Result<Self, InvalidRecord> {
        if text.len() > MAX_RECORD {
            return Err(InvalidRecord::Refused("its record has more than 900 KiB"));
        }
        let record: Self = serde_json::from_str(text)?;
        record.check()?;
        Ok(record)
    }

    /// Whether it is within bounds.
    ///
    /// # Errors
    /// [`InvalidRecord`]
    pub fn check(&self) -> Result<(), InvalidRecord> {
        let refused = |why| Err(InvalidRecord::Refused(why));
        if self.blobs.len() > MAX_BLOBS {
            return refused("it has more than 4000 blobs");
        }
        if self.bytes() > MAX_BYTES {
            return refused("it has more than 64 GiB");
        }
        if !self.blobs.contains(&self.top) {
            return refused("its manifest is not among its blobs");
        }
        let is_word = |text: &String| text.len() <= MAX_WORD && text.bytes().all(|byte| byte.is_ascii_graphic());
        if self.platforms.len() > MAX_PLATFORMS || !self.platforms.iter().chain(&self.media_type).all(is_word) {
            return refused("its platforms or its type are no words");
        }
        Ok(())
    }

    /// Bytes of all blobs.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add)
    }

    /// Whether a blob is there.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.blobs.iter().any(|blob| blob.digest == *digest)
    }

    /// Adds the other platforms of the same image.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.blobs.extend(other.blobs.iter().copied());
        self.blobs.sort();
        self.blobs.dedup();
        self.platforms.extend(other.platforms.iter().cloned());
        self.platforms.sort();
        self.platforms.dedup();
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_tags_and_digests() {
        let digest = Digest::of(b"a");
        for (text, shown) in [
            ("shop", "shop:latest".to_owned()),
            ("shop:v3", "shop:v3".to_owned()),
            ("ghcr.io/me/shop:V_1.2-x", "ghcr.io/me/shop:V_1.2-x".to_owned()),
            (&format!("shop:v3@sha256:{digest}"), format!("shop:v3@sha256:{digest}")),
        ] {
            assert_eq!(text.parse::<ImageName>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_could_be_a_path_or_a_subject_is_no_name() {
        let (long, tag) = ("a".repeat(300), format!("a:{}", "v".repeat(129)));
        let texts = [
            "",
            ":v1",
            "shop:",
            "Shop",
            "../shop",
            "a/../b",
            "a..b",
            "/shop",
            "shop/",
            "a//b",
            "-a",
            "a b",
            "shop:v 1",
            "shop:a/b",
            "shop:.x",
            "shop:-x",
            "shop:*",
            "shop.>",
            "localhost:5000/shop:v1",
            "shop@sha256:12",
            "shop@md5:aa",
            "schön",
            &long,
            &tag,
        ];
        for text in texts {
            assert!(text.parse::<ImageName>().is_err(), "{text}");
        }
        for key in ["tags/../x:v1", "tags/shop", "tags/shop:v1@sha256:aa", "blobs/sha256/AA", "pushes/a/b", "pushes/", "else", ""]
        {
            assert_eq!(Key::of(key), None, "{key}");
        }
    }

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let name: ImageName = "me/shop:v1".parse().unwrap();
        for key in [Key::Blob(Digest::of(b"x")), Key::Tag(name), Key::Push("abc1".into())] {
            assert_eq!(Key::of(&key.to_string()), Some(key));
        }
    }

    #[test]
    fn a_record_is_bounded_and_names_its_manifest() {
        let blob = |text: &str| BlobRecord { digest: Digest::of(text.as_bytes()), size: text.len() as u64 };
        let record =
            ImageRecord { top: blob("m"), media_type: None, platforms: vec!["linux/amd64".into()], blobs: vec![blob("m")] };
        let read = |record: &ImageRecord| ImageRecord::read(&serde_json::to_string(record).unwrap());
        assert_eq!(read(&record).unwrap(), record);
        let refused = |record: ImageRecord| read(&record).unwrap_err().to_string();
        assert!(refused(ImageRecord { top: blob("n"), ..record.clone() }).contains("not among its blobs"));
        assert!(refused(ImageRecord { blobs: vec![blob("m"); MAX_BLOBS + 1], ..record.clone() }).contains("more than 4000"));
        let huge = BlobRecord { size: u64::MAX, ..blob("x") };
        assert!(refused(ImageRecord { blobs: vec![blob("m"), huge], ..record.clone() }).contains("64 GiB"));
        assert!(refused(ImageRecord { platforms: vec!["\u{1b}[31m".into()], ..record.clone() }).contains("no words"));
        assert!(ImageRecord::read(&" ".repeat(MAX_RECORD + 1)).unwrap_err().to_string().contains("900 KiB"));
        let both = record.clone().with(&ImageRecord { platforms: vec!["linux/arm64".into()], blobs: vec![blob("o")], ..record });
        assert_eq!((both.blobs.len(), both.platforms.len()), (2, 2));
    }

    proptest! {
        #[test]
        fn no_key_and_no_record_is_too_strange(text in "\\PC{0,80}") {
            if let Some(key) = Key::of(&text) {
                prop_assert_eq!(key.to_string(), text.clone());
            }
            drop(Key::of(&format!("tags/{text}")));
            drop(ImageRecord::read(&text));
        }
    }
}
