//! Tarballs, layouts and a virtual machine for the tests.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nex_image::file::hex;
use nex_image::resources::{Layout as Resources, Mirror, Resource, ResourcePaths, install, manifest};
use nex_testkit::registry::{Manners, Registry};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A tarball in the making.
pub(crate) struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Mode, owner, group and time.
    pub(crate) fn file(&mut self, path: &str, content: &[u8], (mode, uid, gid, mtime): (u32, u64, u64, u64)) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(mtime);
        self.0.append_data(&mut header, path, content).unwrap();
    }

    pub(crate) fn link(&mut self, kind: tar::EntryType, path: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        self.0.append_link(&mut header, path, target).unwrap();
    }

    /// An empty file with a name that no honest builder writes.
    pub(crate) fn raw_name(&mut self, name: &[u8]) {
        self.dishonest(name, 0);
    }

    /// A file that says it has that many bytes.
    pub(crate) fn claims(&mut self, name: &str, size: u64) {
        self.dishonest(name.as_bytes(), size);
    }

    fn dishonest(&mut self, name: &[u8], size: u64) {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.0.append(&header, std::io::empty()).unwrap();
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// A digest without its algorithm.
fn bare(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

/// An OCI layout.
pub(crate) struct Layout {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    /// Digests of all layers, in hex, in the order they were made.
    pub(crate) layers: Vec<String>,
    pub(crate) tags: BTreeMap<String, String>,
    lies: bool,
}

impl Layout {
    pub(crate) fn new() -> Self {
        Self { blobs: BTreeMap::new(), layers: Vec::new(), tags: BTreeMap::new(), lies: false }
    }

    fn add(&mut self, bytes: Vec<u8>) -> Value {
        let (digest, size) = (hex(&Sha256::digest(&bytes)), bytes.len());
        self.blobs.insert(digest.clone(), bytes);
        json!({"mediaType": "application/octet-stream", "digest": format!("sha256:{digest}"), "size": size})
    }

    fn manifest(&mut self, layers: &[Vec<u8>]) -> Value {
        let config = self.add(b"{}".to_vec());
        let layers: Vec<Value> = layers.iter().map(|layer| self.add(layer.clone())).collect();
        let hex = |layer: &Value| bare(layer["digest"].as_str().unwrap()).to_owned();
        self.layers.extend(layers.iter().map(hex));
        self.add(serde_json::to_vec(&json!({"schemaVersion": 2, "config": config, "layers": layers})).unwrap())
    }

    /// An image for one machine.
    pub(crate) fn image(&mut self, tag: &str, architecture: &str, layers: &[Vec<u8>]) {
        self.index(tag, &[(architecture, layers)]);
    }

    /// An image for several.
    pub(crate) fn index(&mut self, tag: &str, machines: &[(&str, &[Vec<u8>])]) {
        let one = |(architecture, layers): &(&str, &[Vec<u8>])| {
            let mut manifest = self.manifest(layers);
            manifest["platform"] = json!({"os": "linux", "architecture": architecture});
            manifest
        };
        let manifests: Vec<Value> = machines.iter().map(one).collect();
        let index = self.add(serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": manifests})).unwrap());
        self.tags.insert(tag.to_owned(), index["digest"].as_str().unwrap().to_owned());
    }

    fn index_json(&self) -> Vec<u8> {
        let entry = |(tag, digest): (&String, &String)| {
            let size = self.blobs[bare(digest)].len();
            json!({"digest": digest, "size": size, "annotations": {"org.opencontainers.image.ref.name": tag}})
        };
        let manifests: Vec<Value> = self.tags.iter().map(entry).collect();
        serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": manifests})).unwrap()
    }

    pub(crate) fn write(&self, dir: &Path) {
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        std::fs::write(dir.join("index.json"), self.index_json()).unwrap();
        for (digest, bytes) in &self.blobs {
            std::fs::write(dir.join("blobs/sha256").join(digest), bytes).unwrap();
        }
    }

    pub(crate) fn archive(&self) -> Vec<u8> {
        let mut archive = Layer::new();
        for (digest, bytes) in &self.blobs {
            archive.file(&format!("blobs/sha256/{digest}"), bytes, (0o644, 0, 0, 0));
        }
        archive.file("index.json", &self.index_json(), (0o644, 0, 0, 0));
        archive.finish()
    }

    /// Its layers come with another byte than they should.
    pub(crate) fn lying(mut self) -> Self {
        self.lies = true;
        self
    }
}

/// A registry with the images of a layout.
pub(crate) fn serve(layout: &Layout) -> Registry {
    let tags = layout.tags.iter().map(|(tag, digest)| (tag.clone(), bare(digest).to_owned())).collect();
    Registry::serve(layout.blobs.clone(), tags, if layout.lies { Manners::Lies } else { Manners::Honest })
}

/// The kernel for guests, installed from the mirror of these tests.
pub(crate) fn kernel() -> Option<(tempfile::TempDir, PathBuf)> {
    let mirror = PathBuf::from(std::env::var_os("NEX_MIRROR")?);
    if !mirror.join(manifest::KERNEL.file).is_file() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let path =
        install(Resource::Kernel, &ResourcePaths::new(Resources::new(dir.path())), Some(&Mirror::Dir(mirror)), &mut |_| ())
            .unwrap();
    Some((dir, path))
}

/// Boots a root image until the machine powers off, and gives what its console said; `None` without QEMU.
#[expect(clippy::disallowed_methods, reason = "a machine of its own for one test, ended with it")]
pub(crate) fn boot(kernel: &(tempfile::TempDir, PathBuf), image: &Path, more: &str) -> Option<String> {
    let append = format!("console=hvc0 reboot=t panic=-1 no_timer_check root=/dev/vda ro rootfstype=erofs {more}");
    let drive = format!("id=d0,file={},format=raw,if=none,readonly=on", image.display());
    let mut command = std::process::Command::new("qemu-system-x86_64");
    command.args(["-M", "microvm,acpi=off,pit=on,pic=on,rtc=on,isa-serial=off", "-accel", "tcg,tb-size=32", "-cpu", "max"]);
    command.args(["-m", "192", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-kernel"]).arg(&kernel.1);
    command.args(["-append", &append, "-drive", &drive, "-device", "virtio-blk-device,drive=d0"]);
    command.args(["-device", "virtio-serial-device", "-chardev", "stdio,id=c0", "-device", "virtconsole,chardev=c0"]);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().ok()?;
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        drop(stdout.read_to_end(&mut said));
        String::from_utf8_lossy(&said).into_owned()
    });
    let deadline = Instant::now() + Duration::from_secs(120);
    let ended = ends_before(deadline, || child.try_wait().unwrap().is_some());
    if !ended {
        child.kill().unwrap();
    }
    child.wait().unwrap();
    let said = reader.join().unwrap();
    assert!(ended, "the guest did not end: {said}");
    Some(said)
}

/// Whether it is done in time.
fn ends_before(deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
    while Instant::now() < deadline {
        if done() {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    false
}
