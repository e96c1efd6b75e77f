//! OCI images for tests: made in memory, byte by byte as a test says, so that hostile ones can be made as well.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// A layer in the making.
pub struct ImageLayer(tar::Builder<Vec<u8>>);

impl std::fmt::Debug for ImageLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageLayer").finish_non_exhaustive()
    }
}

impl Default for ImageLayer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

#[expect(clippy::missing_panics_doc, clippy::expect_used, reason = "memory takes all that is written")]
impl ImageLayer {
    /// An entry of any type, with a name that is not looked at.
    #[must_use]
    pub fn entry(
        mut self,
        kind: EntryType,
        path: &str,
        (mode, owner): (u32, u64),
        (content, target): (&[u8], Option<&str>),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        let name = header.as_mut_bytes().get_mut(..path.len().min(100)).expect("a header");
        name.copy_from_slice(path.as_bytes().get(..path.len().min(100)).expect("a path"));
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(1);
        if let Some(target) = target {
            header.set_link_name_literal(target).expect("a target of at most 100 bytes");
        }
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(8).expect("a number");
            header.set_device_minor(0).expect("a number");
        }
        header.set_cksum();
        self.0.append(&header, content).expect("memory");
        self
    }

    /// A file of root.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, (mode, 0), (content, None))
    }

    /// A directory of root.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, path, (mode, 0), (b"", None))
    }

    /// A disk.
    #[must_use]
    pub fn device(self, path: &str) -> Self {
        self.entry(EntryType::Block, path, (0o666, 0), (b"", None))
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, (0o777, 0), (b"", Some(target)))
    }

    /// A hard link.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, (0o644, 0), (b"", Some(target)))
    }

    /// The layer.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("memory")
    }
}

/// An image for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    layers: Vec<Vec<u8>>,
    config: Value,
    blobs: Vec<(String, Vec<u8>)>,
}

/// What the processor of this machine is called in images.
#[must_use]
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// The statically linked `busybox` of this machine, if it has one.
#[must_use]
pub fn busybox() -> Option<Vec<u8>> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find_map(|dir| std::fs::read(dir.join("busybox")).ok())
}

impl Image {
    /// An image of these layers, which may be compressed, and this `config` of its program.
    #[must_use]
    pub fn new(layers: Vec<Vec<u8>>, config: &Value) -> Self {
        Self::of(layers, json!({"os": "linux", "architecture": architecture(), "config": config}))
    }

    /// An image with a whole configuration.
    #[must_use]
    pub fn of(layers: Vec<Vec<u8>>, config: Value) -> Self {
        Self { layers, config, blobs: Vec::new() }.with_blobs()
    }

    fn with_blobs(mut self) -> Self {
        let config = self.config.to_string().into_bytes();
        let mut blobs = vec![(digest(&config), config)];
        blobs.extend(self.layers.iter().map(|layer| (digest(layer), layer.clone())));
        let descriptor = |(digest, bytes): &(String, Vec<u8>)| json!({"mediaType": "application/octet-stream", "digest": format!("sha256:{digest}"), "size": bytes.len()});
        let mut descriptors = blobs.iter().map(descriptor);
        let config = descriptors.next();
        let layers: Vec<Value> = descriptors.collect();
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().into_bytes();
        blobs.push((digest(&manifest), manifest));
        self.blobs = blobs;
        self
    }

    /// Replaces a blob's bytes and keeps its name: a lie. Counted from the configuration, then the layers.
    #[must_use]
    pub fn lying(mut self, index: usize, bytes: &[u8]) -> Self {
        if let Some((_, blob)) = self.blobs.get_mut(index) {
            bytes.clone_into(blob);
        }
        self
    }

    /// Digest of its manifest, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.blobs.last().map_or("", |(digest, _)| digest)
    }

    /// Its blobs, by their digests in hexadecimal: configuration, layers, manifest.
    #[must_use]
    pub fn blobs(&self) -> &[(String, Vec<u8>)] {
        &self.blobs
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let size = self.blobs.last().map_or(0, |(_, manifest)| manifest.len());
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", self.digest()), "size": size,
            "annotations": {"org.opencontainers.image.ref.name": "v1"},
        }]});
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ];
        files.extend(self.blobs.iter().map(|(digest, bytes)| (format!("blobs/sha256/{digest}"), bytes.clone())));
        files
    }

    /// Writes it as a layout.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(dir.join("blobs/sha256"))?;
        self.files().iter().try_for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes))
    }

    /// As an archive of a layout.
    #[must_use]
    pub fn archive(&self) -> Vec<u8> {
        tar_of(&self.files())
    }

    /// As `docker save` writes it that knows of no layouts.
    #[must_use]
    pub fn docker_archive(&self) -> Vec<u8> {
        let config = format!("{}.json", digest(self.config.to_string().as_bytes()));
        let names: Vec<String> = (0..self.layers.len()).map(|number| format!("{number}/layer.tar")).collect();
        let list = json!([{"Config": config, "RepoTags": ["shop:v1"], "Layers": names}]);
        let mut files = vec![(config, self.config.to_string().into_bytes())];
        files.extend(names.into_iter().zip(self.layers.iter().cloned()));
        files.push(("manifest.json".to_owned(), list.to_string().into_bytes()));
        tar_of(&files)
    }
}

fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    files.iter().fold(ImageLayer::default(), |tar, (name, bytes)| tar.file(name, 0o644, bytes)).finish()
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
