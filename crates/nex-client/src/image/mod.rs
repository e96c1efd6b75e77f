//! Images of a namespace, kept in NATS: blobs by their digests, which images share, and tags that say which of them belong together.
//!
//! | file | what is in it |
//! |---|---|
//! | `entries` | what lies in the bucket, replaced only where nobody else has replaced it |
//! | `push` | blobs that are missing, then the tag |
//! | `blob` | a blob that is read |
//! | `unused` | what no tag reaches, and its removal |

mod blob;
mod entries;
mod error;
mod push;
mod unused;

use nex_protocol::digest::Digest;
use nex_protocol::image_store::{self, ImageName, ImageRecord, Key};

pub use self::blob::BlobReader;
use self::entries::{Entries, Entry};
pub use self::error::ImageError;
pub use self::push::{LocalBlob, Push, Pushed};
pub use self::unused::{Collected, Collection};
use crate::Client;
use crate::artifact::{ArtifactError, NewBucket};
use nex_protocol::deploy::Location;

/// Bound of the bucket when it is made, in bytes; a push that needs more gives it more.
pub const DEFAULT_BUCKET_BYTES: i64 = 1 << 30;

/// The images of a namespace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageStore {
    client: Client,
    domain: Option<String>,
    entries: Entries,
}

/// An image by its tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedImage {
    /// Name and tag.
    pub name: ImageName,
    /// When it was pushed, milliseconds since 1970.
    pub pushed_ms: i64,
    /// What it consists of; why nobody knows, where the tag cannot be read.
    pub record: Result<ImageRecord, String>,
}

impl Client {
    /// The images of the namespace, if there have ever been any.
    ///
    /// # Errors
    /// [`ImageError`]
    pub async fn image_store(&self, domain: Option<&str>) -> Result<Option<ImageStore>, ImageError> {
        let found = Box::pin(self.open_bucket(&self.images_location()?, domain)).await?;
        Ok(match found {
            Some(_) => Some(Box::pin(self.image_store_of(domain)).await?),
            None => None,
        })
    }

    /// The images of the namespace; a place for them is made if there is none.
    ///
    /// # Errors
    /// [`ImageError`]
    pub async fn make_image_store(&self, new: NewBucket, domain: Option<&str>) -> Result<ImageStore, ImageError> {
        let location = self.images_location()?;
        if Box::pin(self.open_bucket(&location, domain)).await?.is_none() {
            Box::pin(self.create_bucket(&location, (new, "Images pushed by nex"), domain)).await?;
        }
        Box::pin(self.image_store_of(domain)).await
    }

    async fn image_store_of(&self, domain: Option<&str>) -> Result<ImageStore, ImageError> {
        let bucket = image_store::bucket(self.namespace());
        let context = self.jetstream(domain);
        let opened = context.get_stream_no_info(format!("OBJ_{bucket}")).await;
        let stream = opened.map_err(|error| ImageError::Failed {
            what: "look for images",
            bucket: bucket.clone(),
            source: error.into(),
        })?;
        let entries = Entries { nats: self.nats().clone(), context, stream, bucket };
        Ok(ImageStore { client: self.clone(), domain: domain.map(str::to_owned), entries })
    }

    fn images_location(&self) -> Result<Location, ArtifactError> {
        let bucket = image_store::bucket(self.namespace());
        Location::new(&bucket, "*").ok_or(ArtifactError::NoBucket(bucket))
    }

    /// That there is no such image.
    #[must_use]
    pub fn no_image(&self, name: &ImageName) -> ImageError {
        ImageError::Missing { name: name.clone(), namespace: self.namespace().to_string() }
    }
}

impl ImageStore {
    /// The bucket.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.entries.bucket
    }

    /// All images, by name and tag.
    ///
    /// # Errors
    /// [`ImageError`]
    pub async fn images(&self) -> Result<Vec<TaggedImage>, ImageError> {
        let entries = self.entries.all().await?;
        let mut found: Vec<_> = entries.iter().filter_map(tagged).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// What a tag means; if a digest was demanded, that one.
    ///
    /// # Errors
    /// [`ImageError`]
    pub async fn image(&self, name: &ImageName) -> Result<ImageRecord, ImageError> {
        let (entry, _) = self.entries.last(&tag_key(name)).await?;
        let entry = entry.filter(|entry| !entry.object.deleted).ok_or_else(|| self.client.no_image(name))?;
        let record = entry.record().map_err(|source| ImageError::Record { name: name.clone(), source })?;
        match name.digest {
            Some(digest) if digest != record.top.digest => {
                Err(ImageError::Moved { name: Box::new(name.clone()), now: record.top.digest })
            }
            _ => Ok(record),
        }
    }

    /// Removes a tag. Its blobs stay until [`Self::collect`] finds them unused.
    ///
    /// # Errors
    /// [`ImageError`]
    pub async fn untag(&self, name: &ImageName) -> Result<(), ImageError> {
        let key = tag_key(name);
        for _ in 0..TRIES {
            let (entry, _) = self.entries.last(&key).await?;
            let entry = entry.filter(|entry| !entry.object.deleted).ok_or_else(|| self.client.no_image(name))?;
            if let (Some(wanted), Ok(record)) = (name.digest, entry.record())
                && record.top.digest != wanted
            {
                return Err(ImageError::Moved { name: Box::new(name.clone()), now: record.top.digest });
            }
            if self.entries.delete(&entry).await? {
                return Ok(());
            }
        }
        Err(ImageError::Busy(name.to_string()))
    }
}

/// How often something is tried again that somebody else changed meanwhile.
const TRIES: u32 = 10;

fn tag_key(name: &ImageName) -> Key {
    Key::Tag(ImageName { digest: None, ..name.clone() })
}

fn blob_key(digest: Digest) -> Key {
    Key::Blob(digest)
}

fn tagged(entry: &Entry) -> Option<TaggedImage> {
    let Key::Tag(name) = &entry.key else { return None };
    let record = entry.record().map_err(|error| error.to_string());
    (!entry.object.deleted).then(|| TaggedImage { name: name.clone(), pushed_ms: entry.at_ms, record })
}
