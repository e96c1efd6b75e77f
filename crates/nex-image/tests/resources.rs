//! Finding and installing what microVMs need: from a mirror that is a directory, with packages made here and with the real ones where
//! `NEX_MIRROR` names a directory that has them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nex_image::file::{hex, sha256};
use nex_image::progress::Progress;
use nex_image::resources::{Layout, Mirror, Resource, ResourcePaths, ResourceStatus, Vmm, find, install, manifest, verify};
use nex_testkit::skip;
use sha2::{Digest as _, Sha256};

fn paths(dir: &Path, bin: &Path) -> ResourcePaths {
    ResourcePaths { path: vec![bin.to_owned()], ..ResourcePaths::new(Layout::new(dir)) }
}

fn program(dir: &Path, name: &str, mode: u32) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join(name), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(dir.join(name), Permissions::from_mode(mode)).unwrap();
}

fn of(found: &[ResourceStatus], resource: Resource) -> &ResourceStatus {
    found.iter().find(|found| found.resource == resource).unwrap()
}

#[test]
fn one_monitor_suffices_and_a_missing_resource_says_how_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    let paths = paths(&dir.path().join("resources"), &bin);
    let found = find(Vmm::Either, &paths);
    assert!(of(&found, Resource::Firecracker).required && of(&found, Resource::Qemu).required);
    assert!(found.iter().all(|found| found.resource != Resource::Jailer), "of no use alone");
    assert!(of(&found, Resource::Kernel).path.is_none() && of(&found, Resource::Firecracker).why.contains("nor in PATH"));
    assert!(of(&found, Resource::Firecracker).next.contains("--force"), "{found:?}");
    assert!(of(&found, Resource::Qemu).next.contains("apt-get install"), "{found:?}");
    assert!(of(&found, Resource::RootImage).next.contains("nex rootfs"), "{found:?}");
    program(&bin, "qemu-system-x86_64", 0o755);
    program(&bin, "firecracker", 0o644);
    let found = find(Vmm::Either, &paths);
    assert_eq!(of(&found, Resource::Qemu).path, Some(bin.join("qemu-system-x86_64")));
    assert!(!of(&found, Resource::Firecracker).required && of(&found, Resource::Firecracker).path.is_none(), "not executable");
    assert!(of(&find(Vmm::Firecracker, &paths), Resource::Firecracker).required);
    assert!(!of(&find(Vmm::Firecracker, &paths), Resource::Jailer).required);
    // What nex installed itself comes before what is in PATH, and after what the configuration names.
    program(&paths.layout.bin(), "firecracker", 0o755);
    assert_eq!(of(&find(Vmm::Firecracker, &paths), Resource::Firecracker).path, Some(paths.layout.firecracker()));
    let named = ResourcePaths { bin_path: vec![bin.clone()], ..paths.clone() };
    program(&bin, "firecracker", 0o755);
    assert_eq!(of(&find(Vmm::Firecracker, &named), Resource::Firecracker).path, Some(bin.join("firecracker")));
    let with_cni = ResourcePaths { cni_bin_path: Some(vec![bin.clone()]), ..paths };
    program(&bin, "ptp", 0o755);
    let found = find(Vmm::Qemu, &with_cni);
    assert!(of(&found, Resource::Cni("ptp")).path.is_some() && of(&found, Resource::Cni("host-local")).path.is_none());
}

#[test]
fn a_file_that_is_no_kernel_or_image_counts_as_missing_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ResourcePaths { agent: Some([1; 16]), ..paths(dir.path(), dir.path()) };
    std::fs::write(paths.kernel(), "bzImage").unwrap();
    std::fs::write(paths.rootfs(), "ext4").unwrap();
    let found = find(Vmm::Qemu, &paths);
    assert!(of(&found, Resource::Kernel).why.contains("no kernel that can be booted"), "{found:?}");
    assert!(of(&found, Resource::RootImage).why.contains("no EROFS image"), "{found:?}");
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0".to_vec();
    elf.resize(64, 0);
    std::fs::write(paths.kernel(), elf).unwrap();
    let tree = nex_erofs::Tree::new(nex_erofs::Meta::root(0o755));
    let mut image = std::fs::File::create(paths.rootfs()).unwrap();
    tree.write(&mut image, &nex_erofs::Options { uuid: [2; 16], ..nex_erofs::Options::default() }).unwrap();
    let found = find(Vmm::Qemu, &paths);
    assert_eq!(of(&found, Resource::Kernel).path, Some(paths.kernel()));
    assert!(of(&found, Resource::RootImage).why.contains("another nex-agent"), "{found:?}");
    assert!(of(&find(Vmm::Qemu, &ResourcePaths { agent: Some([2; 16]), ..paths }), Resource::RootImage).path.is_some());
}

#[test]
fn a_package_with_another_digest_is_never_installed() {
    let dir = tempfile::tempdir().unwrap();
    let (mirror, paths) = (dir.path().join("mirror"), ResourcePaths::new(Layout::new(dir.path().join("resources"))));
    std::fs::create_dir(&mirror).unwrap();
    let from = Some(Mirror::of(mirror.to_str().unwrap()));
    let error = install(Resource::Kernel, &paths, from.as_ref(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains(manifest::KERNEL.file) && error.contains("--mirror"), "{error}");
    std::fs::write(mirror.join(manifest::KERNEL.file), "something else").unwrap();
    let error = install(Resource::Kernel, &paths, from.as_ref(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("it was not used") && error.contains(manifest::KERNEL.sha256), "{error}");
    assert!(!paths.layout.dir().exists());
    let error = install(Resource::Qemu, &paths, from.as_ref(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("apt-get install"), "{error}");
}

/// Answers every request with the same, until the test is over.
fn serve(status: &'static str, body: &'static [u8]) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/files/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let count = stream.read(&mut request).unwrap_or(0);
            assert!(request[..count].starts_with(b"GET /files/thing.tgz HTTP/1.1"));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            drop(stream.write_all(&[head.as_bytes(), body].concat()));
        }
    });
    address
}

#[test]
fn a_mirror_may_be_a_url_and_its_files_are_verified() {
    let sha256: &'static str = Box::leak(hex(&Sha256::digest(b"the thing")).into_boxed_str());
    let package = |max_bytes| manifest::Package {
        name: "Thing",
        version: "1",
        file: "thing.tgz",
        url: "https://nowhere.invalid/thing.tgz",
        sha256,
        max_bytes,
        members: &[],
    };
    let fetch = |max_bytes, address: &str| {
        nex_image::resources::fetch::fetch(&package(max_bytes), Some(&Mirror::of(address)), &mut |_| ())
    };
    let mut text = String::new();
    fetch(100, &serve("200 OK", b"the thing")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "the thing");
    for (address, max_bytes, said) in [
        (serve("200 OK", b"another thing"), 100, "it was not used"),
        (serve("200 OK", b"the thing"), 4, "has more than 4 bytes"),
        (serve("404 Not Found", b""), 100, "cannot download http://127.0.0.1:"),
        ("http://127.0.0.1:1".to_owned(), 100, "name a mirror, or a directory"),
    ] {
        let error = fetch(max_bytes, &address).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

fn mirror() -> Option<PathBuf> {
    std::env::var_os("NEX_MIRROR").map(PathBuf::from)
}

#[test]
fn the_kernel_is_installed_from_its_package_and_verified() {
    const NAME: &str = "the_kernel_is_installed_from_its_package_and_verified";
    let Some(mirror) = mirror().filter(|dir| dir.join(manifest::KERNEL.file).is_file()) else {
        skip!(NAME, format!("no kernel: NEX_MIRROR names no directory with {}", manifest::KERNEL.file));
    };
    let dir = tempfile::tempdir().unwrap();
    let paths = ResourcePaths { kernel: Some(dir.path().join("boot/kernel")), ..ResourcePaths::new(Layout::new(dir.path())) };
    let mut seen = 0;
    let mut report = |progress: Progress<'_>| match progress {
        Progress::Begin { bytes, .. } => seen = bytes.unwrap_or_default(),
        Progress::Advance(count) => seen -= count,
    };
    let path = install(Resource::Kernel, &paths, Some(&Mirror::Dir(mirror)), &mut report).unwrap();
    assert_eq!((seen, &path), (0, &dir.path().join("boot/kernel")));
    let expected = manifest::of(Resource::Kernel).unwrap().1.sha256.unwrap();
    assert_eq!(hex(&sha256(&path).unwrap()), expected);
    assert_eq!(verify(Resource::Kernel, &path, &paths).unwrap(), Some(true));
    std::fs::write(&path, "changed").unwrap();
    assert_eq!(verify(Resource::Kernel, &path, &paths).unwrap(), Some(false));
    assert_eq!(verify(Resource::Kernel, Path::new("/elsewhere"), &paths).unwrap(), None);
}
