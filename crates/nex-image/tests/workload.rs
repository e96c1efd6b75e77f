//! Roots of workloads: what is in one, and what hostile images meet.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "../../nex-erofs/tests/erofs/reader.rs"]
mod reader;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use nex_image::oci::ImageSource;
use nex_image::workload;
use nex_testkit::image::{Image, ImageLayer};
use serde_json::json;
use tar::EntryType;

type Entries = BTreeMap<String, reader::Entry>;

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn build(archive: &[u8]) -> Result<Entries, String> {
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (dir.path().join("archive"), dir.path().join("root"));
    std::fs::write(&path, archive).unwrap();
    let mut file = File::create(&out).unwrap();
    workload::build(&path, tempfile::tempfile().unwrap(), &mut file).map_err(|error| chain(&error))?;
    let entries = reader::read(&std::fs::read(&out).unwrap());
    Ok(entries.into_iter().map(|(path, entry)| (String::from_utf8(path).unwrap(), entry)).collect())
}

fn root(layers: Vec<ImageLayer>, config: &serde_json::Value) -> Result<Entries, String> {
    build(&Image::new(layers.into_iter().map(ImageLayer::finish).collect(), config).archive())
}

fn refused(layer: ImageLayer) -> String {
    match root(vec![layer], &json!({"Cmd": ["/a"]})) {
        Ok(entries) => panic!("taken: {:?}", entries.keys()),
        Err(why) => why,
    }
}

#[test]
fn an_image_becomes_a_root_with_the_places_of_a_jail_and_without_privileges() {
    let below = ImageLayer::default()
        .file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n")
        .file("bin/su", 0o4755, b"setuid")
        .file("etc/old", 0o644, b"goes")
        .file("opt/a", 0o644, b"goes")
        .entry(EntryType::Char, "dev/sda", (0o666, 0), (b"", None))
        .symlink("bin/link", "su")
        .file("real/program", 0o755, b"program")
        .symlink("app", "real");
    let above = ImageLayer::default()
        .file("etc/.wh.old", 0o644, b"")
        .file("opt/.wh..wh..opq", 0o644, b"")
        .file("opt/b", 0o640, b"new")
        .hard_link("bin/again", "bin/su")
        .file("app/more", 0o755, b"behind a link")
        .symlink("proc", "/etc")
        .symlink("etc/resolv.conf", "/../../secret")
        .file(".nex/run.json", 0o644, b"a lie")
        .entry(EntryType::Regular, "secret", (0o600, 33), (b"web's", None));
    let config = json!({"User": "web", "Entrypoint": ["/app/program"], "WorkingDir": "/app/data", "StopSignal": "SIGQUIT"});
    let all = root(vec![below, above], &config).unwrap();
    for (name, mode) in
        [("proc", 0o040_555), ("dev", 0o040_555), ("tmp", 0o040_555), ("work", 0o040_555), ("real/data", 0o040_777)]
    {
        assert_eq!(all[name].mode, mode, "{name}");
    }
    assert!(!all.keys().any(|name| name.starts_with("dev/")), "no device");
    assert_eq!((all["bin/su"].mode, all["bin/again"].mode), (0o100_555, 0o100_555), "no setuid");
    assert_eq!((all["secret"].mode, all["secret"].uid), (0o100_666, 0), "what its user may do, the sandbox's may");
    assert_eq!(all["opt/b"].mode, 0o100_000, "what its user may not read, nobody does");
    assert!(!all.contains_key("etc/old") && !all.contains_key("opt/a") && all.contains_key("real/more"));
    assert_eq!(all["etc/resolv.conf"].mode & 0o170_000, 0o100_000, "a file to mount over, not a link");
    let run: nex_protocol::image::ImageRun = serde_json::from_slice(&all[".nex/run.json"].content).unwrap();
    assert_eq!((run.entrypoint, run.home.as_str(), run.stop_signal), (vec!["/app/program".to_owned()], "/srv", 3));
}

#[test]
fn hostile_images_are_refused_with_what_they_are() {
    let file = |path: &str| ImageLayer::default().file(path, 0o644, b"x");
    for (layer, expected) in [
        (ImageLayer::default().device("srv/sda"), "'srv/sda' is a device"),
        (ImageLayer::default().entry(EntryType::Char, "dev/../srv/x", (0o666, 0), (b"", None)), "is a device"),
        (file("../../etc/cron.d/x"), "no path of an image"),
        (ImageLayer::default().symlink("a", "b").symlink("b", "a").file("a/x", 0o644, b""), "too many symbolic links"),
        (ImageLayer::default().hard_link("a", "b").hard_link("b", "a"), "which is no file of the image"),
        (ImageLayer::default().hard_link("shadow", "../../etc/shadow"), "no path of an image"),
        (file("a").file("a/b", 0o644, b""), "no directory"),
        (ImageLayer::default().file(&"d/".repeat(49), 0o644, b"x").file("x", 0o644, b""), ""),
    ] {
        match (root(vec![layer], &json!({"Cmd": ["/a"]})), expected) {
            (Ok(_), "") => {}
            (answer, _) => assert!(answer.as_ref().is_err_and(|why| why.contains(expected)), "{expected}: {answer:?}"),
        }
    }
    let mut bomb = tar::Header::new_gnu();
    bomb.set_path("bomb").unwrap();
    bomb.set_size(workload::MAX_BYTES + 1);
    bomb.set_mode(0o644);
    bomb.set_uid(0);
    bomb.set_gid(0);
    bomb.set_mtime(0);
    bomb.set_cksum();
    let bomb = Image::new(vec![bomb.as_bytes().to_vec()], &json!({})).archive();
    assert!(build(&bomb).unwrap_err().contains("unpacked bytes"));
}

#[test]
fn what_is_not_what_its_digest_says_is_refused() {
    let layer = || ImageLayer::default().file("a", 0o755, b"a").finish();
    let image = || Image::new(vec![layer()], &json!({"Cmd": ["/a"]}));
    assert!(build(&image().archive()).is_ok());
    let other = ImageLayer::default().file("b", 0o755, b"b").finish();
    assert!(build(&image().lying(1, &other).archive()).unwrap_err().contains("its content has the digest"));
    assert!(build(&image().lying(1, &other[..512]).archive()).unwrap_err().contains("it has 512 of the"));
    assert!(build(&image().lying(0, b"{}").archive()).unwrap_err().contains("it has 2 of the"));
    assert!(build(&image().archive()[..2048]).is_err());
    assert!(build(b"no archive").is_err() && build(b"").is_err());
}

#[test]
fn an_image_that_cannot_run_here_says_why() {
    let layer = || vec![ImageLayer::default().file("a", 0o755, b"a").finish()];
    let other = json!({"os": "linux", "architecture": "s390x", "config": {"Cmd": ["/a"]}});
    assert!(build(&Image::of(layer(), other).archive()).unwrap_err().contains("only for linux/s390x"));
    assert!(build(&Image::of(layer(), json!([])).archive()).unwrap_err().contains("configuration is invalid"));
    assert!(refused_config(&json!({"User": "nobody"})).contains("runs as 'nobody'"));
    assert!(refused_config(&json!({"WorkingDir": "here"})).contains("'here' is no absolute path"));
    assert!(refused_config(&json!({"WorkingDir": "/a/below"})).contains("/a/below cannot be replaced"));
    assert!(
        refused(ImageLayer::default().file("x", 0o644, b"").entry(EntryType::GNUSparse, "s", (0o644, 0), (b"", None)))
            .contains("sparse")
    );
}

fn refused_config(config: &serde_json::Value) -> String {
    root(vec![ImageLayer::default().file("a", 0o755, b"a")], config).map(|_| ()).unwrap_err()
}

fn packed(source: &ImageSource) -> (Vec<u8>, Vec<String>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let packed = source.pack(file.as_file(), &mut |_| ()).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let platforms = packed.platforms.iter().map(|platform| platform.architecture.clone()).collect();
    (std::fs::read(file.path()).unwrap(), platforms)
}

fn source(path: &Path, prefix: &str, tag: &str) -> ImageSource {
    ImageSource::of(&format!("{prefix}{}{tag}", path.display())).unwrap_or_else(|| panic!("{} is no image", path.display()))
}

#[test]
fn an_image_is_packed_to_the_same_bytes_whatever_it_lies_in() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let image = Image::new(vec![ImageLayer::default().file("a", 0o755, b"program").finish()], &json!({"Cmd": ["/a"]}));
    image.write(&at("layout")).unwrap();
    std::fs::write(at("oci.tar"), image.archive()).unwrap();
    std::fs::write(at("docker.tar"), image.docker_archive()).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(File::create(at("oci.tar.gz")).unwrap(), flate2::Compression::fast());
    gzip.write_all(&image.archive()).unwrap();
    gzip.finish().unwrap();
    let first = packed(&source(&at("layout"), "", ""));
    for other in [
        source(&at("layout"), "oci:", ":v1"),
        source(&at("oci.tar"), "", ""),
        source(&at("oci.tar"), "oci-archive:", ":v1"),
        source(&at("oci.tar.gz"), "", ""),
    ] {
        assert_eq!(packed(&other), first, "{other:?}");
    }
    assert_eq!(first.1, [nex_testkit::image::architecture()]);
    assert_eq!(build(&first.0).unwrap()["a"].content, b"program");
    let docker = packed(&source(&at("docker.tar"), "docker-archive:", ":v1"));
    assert_eq!((build(&docker.0).unwrap()["a"].content.as_slice(), docker.1), (b"program".as_slice(), first.1));
    let pack =
        |text: String| ImageSource::of(&text).unwrap().pack(&tempfile::tempfile().unwrap(), &mut |_| ()).unwrap_err().to_string();
    for name in ["layout", "oci.tar", "docker.tar"] {
        let prefix = if name == "layout" { "oci:" } else { "oci-archive:" };
        assert!(pack(format!("{prefix}{}:v2", at(name).display())).contains("0 images"), "{name}");
    }
    image.lying(1, b"other").write(&at("lies")).unwrap();
    assert!(pack(at("lies").display().to_string()).contains("blob sha256:"));
    std::fs::write(at("plain.tar"), ImageLayer::default().file("a", 0o644, b"").finish()).unwrap();
    for name in ["plain.tar", "none", "layout/index.json", "layout/blobs"] {
        assert_eq!(ImageSource::of(at(name).to_str().unwrap()), None, "{name}");
    }
}
