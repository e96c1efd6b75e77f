//! Root images of every kind of base, read back by a reader of images and booted where there is a virtual machine monitor.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "../../nex-erofs/tests/erofs/reader.rs"]
mod reader;
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nex_image::base::Base;
use nex_image::oci::RegistryAccess;
use nex_image::rootfs::{Built, RootfsSpec, agent_id, build};
use nex_testkit::skip;
use support::{Layer, Layout, gzip, serve};

/// This test program is as static as an agent.
fn agent() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn plain_http() -> RegistryAccess {
    RegistryAccess { plain_http: true, credentials: None }
}

fn spec(base: Base) -> RootfsSpec {
    RootfsSpec { base, agent: agent(), label: "nex 0.0.0".into(), mtime: None }
}

fn built(base: Base, out: &Path) -> Built {
    build(&spec(base), out, &mut |_| ()).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// What a failure says, with all its causes.
fn refusal(base: Base) -> String {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("rootfs.img");
    let error = build(&spec(base), &out, &mut |_| ()).unwrap_err();
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "nothing is left");
    chain(&error)
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn all(image: &Path) -> BTreeMap<String, reader::Entry> {
    let entries = reader::read(&std::fs::read(image).unwrap());
    entries.into_iter().map(|(path, entry)| (String::from_utf8(path).unwrap(), entry)).collect()
}

#[test]
fn an_image_without_a_base_has_the_agent_and_its_directories_and_devices() {
    let dir = tempfile::tempdir().unwrap();
    let (out, again) = (dir.path().join("a.img"), dir.path().join("b.img"));
    let first = built(Base::Empty, &out);
    let all = all(&out);
    assert_eq!(first, built(Base::Empty, &again));
    assert!(std::fs::read(&out).unwrap() == std::fs::read(&again).unwrap(), "the same input gives the same bytes");
    let agent = &all["nex-agent"];
    assert_eq!((agent.mode, agent.uid, agent.content.len() as u64), (0o100_555, 0, agent_file_len()));
    assert_eq!((all["dev/console"].device, all["dev/null"].device), (0x501, 0x103));
    assert_eq!((all["tmp"].mode, all["proc"].mode), (0o041_777, 0o040_555));
    for name in ["dev", "sys", "run", "etc", "artifact", "out", "work", "root"] {
        assert_eq!(all[name].mode & 0o170_000, 0o040_000, "{name}");
    }
    let said = nex_erofs::identify(&out).unwrap().unwrap();
    assert_eq!((said.uuid, &said.label[..9]), (agent_id(&self::agent()).unwrap(), b"nex 0.0.0".as_slice()));
    assert_eq!(out.metadata().unwrap().mode() & 0o7777, 0o644);
    assert_eq!(dir.path().read_dir().unwrap().count(), 2, "nothing else is left");
}

fn agent_file_len() -> u64 {
    agent().metadata().unwrap().len()
}

#[test]
fn an_agent_that_cannot_run_in_a_guest_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("agent");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    for path in [script, "/lib64/libc.so.6".into(), "/bin/sh".into()] {
        if path.exists() {
            let spec = RootfsSpec { agent: path.clone(), ..spec(Base::Empty) };
            let error = build(&spec, &dir.path().join("out"), &mut |_| ()).unwrap_err().to_string();
            assert!(error.contains("not a static ELF file"), "{}: {error}", path.display());
        }
    }
}

#[test]
fn a_directory_is_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    std::fs::create_dir_all(base.join("usr/bin")).unwrap();
    std::fs::write(base.join("usr/bin/tool"), "tool").unwrap();
    std::fs::hard_link(base.join("usr/bin/tool"), base.join("usr/bin/again")).unwrap();
    std::fs::set_permissions(base.join("usr/bin/tool"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("usr/bin", base.join("bin")).unwrap();
    symlink("/nowhere", base.join("run")).unwrap();
    let out = dir.path().join("rootfs.img");
    let first = built(Base::Dir(base.clone()), &out);
    let all = all(&out);
    let tool = &all["usr/bin/tool"];
    assert_eq!((tool.mode, tool.links, tool.content.as_slice()), (0o104_755, 2, b"tool".as_slice()));
    assert_eq!((all["usr/bin/again"].nid, all["bin"].content.as_slice()), (tool.nid, b"usr/bin".as_slice()));
    assert_eq!(all["run"].mode, 0o040_755, "where something is mounted there is a directory");
    let early = RootfsSpec { mtime: Some(12), ..spec(Base::Dir(base.clone())) };
    assert_ne!(build(&early, &out, &mut |_| ()).unwrap().sha256, first.sha256);
    assert!(self::all(&out).values().all(|entry| entry.mtime == 12), "no time is later than the one given");
    let error = build(&spec(Base::Dir(base.clone())), &base.join("x/rootfs.img"), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("lies in") && !base.join("x").exists(), "{error}");
}

#[test]
fn a_tarball_keeps_owners_modes_times_and_long_names() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("deep/{}/{}", "d".repeat(120), "n".repeat(200));
    let mut layer = Layer::new();
    layer.file("etc/passwd", b"root", (0o640, 7, 70_000, 1234));
    layer.file(&long, b"long", (0o644, 0, 0, 0));
    layer.link(tar::EntryType::Symlink, "etc/long", &format!("/{}", "t".repeat(300)));
    layer.link(tar::EntryType::Link, "etc/hard", "etc/passwd");
    layer.file("etc/.wh.kept", b"", (0o644, 0, 0, 0));
    let bytes = layer.finish();
    let mut images = Vec::new();
    let zstd = ruzstd::encoding::compress_to_vec(bytes.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    for packed in [bytes.clone(), gzip(&bytes), zstd] {
        let (path, out) = (dir.path().join("base"), dir.path().join("rootfs.img"));
        std::fs::write(&path, packed).unwrap();
        images.push(built(Base::Tarball(path), &out));
        let all = all(&out);
        let passwd = &all["etc/passwd"];
        assert_eq!((passwd.mode, passwd.uid, passwd.gid, passwd.mtime, passwd.links), (0o100_640, 7, 70_000, 1234, 2));
        assert_eq!((all[&long].content.as_slice(), all["etc/long"].content.len()), (b"long".as_slice(), 301));
        assert!(all.contains_key("etc/.wh.kept"), "a tarball is no layer");
    }
    assert!(images.iter().all(|image| *image == images[0]));
}

#[test]
fn tarballs_that_escape_or_exceed_the_limits_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |bytes: Vec<u8>| {
        let path = dir.path().join("base.tar");
        std::fs::write(&path, bytes).unwrap();
        refusal(Base::Tarball(path))
    };
    let mut out = Layer::new();
    out.raw_name(b"../../etc/cron.d/x");
    assert!(refused(out.finish()).contains("no path of an image"));
    let mut bomb = Layer::new();
    bomb.claims("big", 1 << 40);
    assert!(refused(bomb.finish()).contains("more than an image may"));
    let mut whole = Layer::new();
    whole.file("a", &[1; 5000], (0o644, 0, 0, 0));
    assert!(refused(whole.finish()[..3000].to_vec()).contains("cut off"));
    assert!(refused(b"this is no tarball at all, however long it may be".repeat(40)).contains("no tarball"));
    assert!(refusal(Base::Tarball("/no/such.tar".into())).contains("cannot read /no/such.tar"));
}

/// An image of two layers, of which the second takes something of the first away.
fn image() -> Layout {
    let (mut lower, mut upper) = (Layer::new(), Layer::new());
    lower.file("etc/one", b"1", (0o644, 0, 0, 5));
    lower.file("etc/two", b"2", (0o644, 0, 0, 5));
    lower.file("opt/old", b"old", (0o644, 1000, 1000, 5));
    upper.file("etc/.wh.one", b"", (0o644, 0, 0, 5));
    upper.file("opt/.wh..wh..opq", b"", (0o644, 0, 0, 5));
    upper.file("opt/new", &[b'n'; 9000], (0o755, 1000, 1000, 5));
    let mut layout = Layout::new();
    layout.image("v1", "amd64", &[gzip(&lower.finish()), upper.finish()]);
    layout
}

#[test]
fn an_oci_image_is_the_same_from_a_layout_an_archive_and_a_registry() {
    let dir = tempfile::tempdir().unwrap();
    let (out, layout) = (dir.path().join("rootfs.img"), image());
    layout.write(&dir.path().join("layout"));
    std::fs::write(dir.path().join("archive.tar"), layout.archive()).unwrap();
    let first = built(Base::OciLayout(dir.path().join("layout"), None), &out);
    let all = all(&out);
    assert!(!all.contains_key("etc/one") && all.contains_key("etc/two") && !all.contains_key("opt/old"));
    assert_eq!((all["opt/new"].content.len(), all["opt/new"].uid), (9000, 1000));
    assert!(!all.keys().any(|path| path.contains(".wh.")));
    assert_eq!(first.base_digest.as_deref(), Some(layout.tags["v1"].as_str()));
    assert_eq!(built(Base::OciArchive(dir.path().join("archive.tar"), Some("v1".into())), &out), first);
    let digest = layout.tags["v1"].clone();
    let registry = serve(&layout);
    for name in ["team/app:v1".to_owned(), format!("team/app@{digest}")] {
        let reference = format!("{}/{name}", registry.address());
        let base = Base::of(&reference, plain_http()).unwrap();
        assert_eq!(built(base, &out), first, "{reference}");
    }
    let refused = |name: &str| refusal(Base::of(&format!("{}/{name}", registry.address()), plain_http()).unwrap());
    assert!(refused("team/app:v2").contains("404"), "{}", refused("team/app:v2"));
    assert!(refused("private/app:v1").contains("NEX_REGISTRY_PASSWORD"), "{}", refused("private/app:v1"));
    assert!(refused(&format!("team/app@sha256:{}", "0".repeat(64))).contains("404"));
}

#[test]
fn blobs_that_do_not_match_their_digests_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut layout = image();
    let layer = layout.layers[1].clone();
    layout.blobs.get_mut(&layer).unwrap()[700] ^= 1;
    layout.write(dir.path());
    let said = refusal(Base::OciLayout(dir.path().to_owned(), None));
    assert!(said.contains(&layer) && said.contains("its content has the digest"), "{said}");
    layout.blobs.get_mut(&layer).unwrap().truncate(1000);
    layout.write(dir.path());
    assert!(refusal(Base::OciLayout(dir.path().to_owned(), None)).contains("it has 1000 of the "));
    layout.blobs.get_mut(&layer).unwrap().resize(1 << 20, 0);
    layout.write(dir.path());
    assert!(refusal(Base::OciLayout(dir.path().to_owned(), None)).contains("it has more of the "));
    let registry = serve(&image().lying());
    let said = refusal(Base::of(&format!("{}/team/app:v1", registry.address()), plain_http()).unwrap());
    assert!(said.contains("cannot be used"), "{said}");
}

#[test]
fn an_ambiguous_image_or_one_for_another_platform_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut layout = image();
    layout.image("v2", "s390x", &[]);
    layout.write(dir.path());
    let said = refusal(Base::OciLayout(dir.path().to_owned(), None));
    assert!(said.contains("has 2 images (v1, v2)"), "{said}");
    assert!(refusal(Base::OciLayout(dir.path().to_owned(), Some("v3".into()))).contains("has 0 images"));
    let mut layout = Layout::new();
    layout.index("v1", &[("s390x", &[]), ("riscv64", &[])]);
    layout.write(dir.path());
    let said = refusal(Base::OciLayout(dir.path().to_owned(), Some("v1".into())));
    assert!(said.contains("not for linux/amd64, only for linux/s390x, linux/riscv64"), "{said}");
}

#[test]
fn a_guest_boots_from_the_image_and_reads_it() {
    const NAME: &str = "a_guest_boots_from_the_image_and_reads_it";
    let Some(kernel) = support::kernel() else { skip!(NAME, "no kernel: NEX_MIRROR names no directory with its package") };
    let busybox = Path::new("/bin/busybox");
    if !busybox.exists() {
        skip!(NAME, "no /bin/busybox");
    }
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    std::fs::create_dir_all(base.join("bin")).unwrap();
    std::fs::copy(busybox, base.join("bin/busybox")).unwrap();
    let probe = "#!/bin/busybox sh\nexec >/dev/console\n/bin/busybox sha256sum /nex-agent /bin/busybox\n\
        /bin/busybox ls -ln /dev/null\necho sum-ends\n/bin/busybox reboot -f\n";
    std::fs::write(base.join("probe"), probe).unwrap();
    std::fs::set_permissions(base.join("probe"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let out = dir.path().join("rootfs.img");
    built(Base::Dir(base), &out);
    let Some(said) = support::boot(&kernel, &out, "init=/probe") else { skip!(NAME, "no qemu-system-x86_64") };
    let sum = |path: &Path| nex_image::file::hex(&nex_image::file::sha256(path).unwrap());
    assert!(said.contains(&format!("{}  /nex-agent", sum(&agent()))), "{said}");
    assert!(said.contains(&format!("{}  /bin/busybox", sum(busybox))), "{said}");
    assert!(said.contains("1,   3"), "{said}");
}
