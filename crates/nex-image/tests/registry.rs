//! Images packed from registries: honest ones, broken ones, and ones that lie.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use nex_image::oci::{Credentials, ImageSource, OciError, Packed, Platform, RegistryAccess, resolve};
use nex_image::progress::Progress;
use nex_testkit::image::{Image, ImageLayer, architecture};
use nex_testkit::registry::{LOGIN, Manners, Registry};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// An image of several layers, each of some hundred bytes.
fn image() -> Image {
    let layer = |name: &str| ImageLayer::default().file(name, 0o755, name.repeat(50).as_bytes()).finish();
    Image::new(["one", "two", "three", "four", "five", "six"].map(layer).to_vec(), &json!({"Cmd": ["/one"]}))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

fn source(registry: &Registry, name: &str, architectures: &[&str]) -> ImageSource {
    let platform = |name: &&str| Platform { os: "linux".into(), architecture: (*name).into() };
    ImageSource::Registry {
        reference: format!("{}/{name}", registry.address()).parse().unwrap(),
        access: RegistryAccess { plain_http: true, credentials: None },
        platforms: architectures.iter().map(platform).collect(),
    }
}

fn pack(source: &ImageSource) -> Result<(Packed, Vec<u8>), String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let packed = source.pack(file.as_file(), &mut |_| ()).map_err(|error| chain(&error))?;
    Ok((packed, std::fs::read(file.path()).unwrap()))
}

fn refused(manners: Manners) -> (String, Vec<String>) {
    let registry = Registry::of(&image(), manners);
    (pack(&source(&registry, "shop:v1", &[])).unwrap_err(), registry.requests())
}

#[test]
fn an_image_is_packed_to_the_same_bytes_from_a_registry() {
    let dir = tempfile::tempdir().unwrap();
    image().write(dir.path()).unwrap();
    let expected = pack(&ImageSource::of(dir.path().to_str().unwrap()).unwrap()).unwrap();
    let registry = Registry::of(&image(), Manners::Honest);
    assert_eq!(pack(&source(&registry, "shop:v1", &[])).unwrap(), expected);
    let digest = format!("shop@sha256:{}", image().digest());
    assert_eq!(pack(&source(&registry, &digest, &[architecture()])).unwrap(), expected);
    let file = tempfile::tempfile().unwrap();
    let (mut done, mut wanted) = (0, 0);
    let mut report = |progress: Progress<'_>| match progress {
        Progress::Begin { bytes, .. } => wanted = bytes.unwrap_or(wanted),
        Progress::Advance(bytes) => done += bytes,
    };
    source(&registry, "shop:v1", &[]).pack(&file, &mut report).unwrap();
    assert!(wanted > 1000 && done == wanted, "{done} of {wanted}");
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let expected = pack(&source(&Registry::of(&image(), Manners::Honest), "shop:v1", &[])).unwrap();
    for manners in [Manners::Breaks(600), Manners::BreaksOnce(100)] {
        let registry = Registry::of(&image(), manners);
        assert_eq!(pack(&source(&registry, "shop:v1", &[])).unwrap(), expected, "{manners:?}");
    }
    let (said, requests) = refused(Manners::Breaks(1));
    assert!(said.contains("cannot be used"), "{said}");
    assert!(requests.len() < 300, "{}", requests.len());
}

#[test]
fn a_registry_that_lies_is_found_out() {
    let (said, _) = refused(Manners::Lies);
    assert!(said.contains("its content has the digest sha256:"), "{said}");
    let (said, _) = refused(Manners::Endless);
    assert!(said.contains("it has more of the"), "{said}");
    let (said, requests) = refused(Manners::NeverBelieves);
    assert!(said.contains("401") && said.contains("docker login"), "{said}");
    assert!(requests.len() <= 3, "{requests:?}");
    let (said, requests) = refused(Manners::Redirects);
    assert!(said.contains("redirect") || said.contains("401"), "{said}");
    assert!(requests.len() < 50, "{}", requests.len());
    let registry = Registry::of(&image(), Manners::Honest);
    let none = format!("shop@sha256:{}", "0".repeat(64));
    assert!(pack(&source(&registry, &none, &[])).unwrap_err().contains("404"));
}

#[test]
fn what_is_private_takes_a_login() {
    let registry = Registry::of(&image(), Manners::Honest);
    let said = pack(&source(&registry, "private/shop:v1", &[])).unwrap_err();
    assert!(said.contains("401") && said.contains("docker login"), "{said}");
    let reference = format!("{}/private/shop:v1", registry.address()).parse().unwrap();
    let credentials = |password: &str| Some(Credentials { name: LOGIN.0.into(), password: password.into() });
    let access = |password| RegistryAccess { plain_http: true, credentials: credentials(password) };
    assert!(matches!(resolve(&reference, &access("wrong"), &mut |_| ()), Err(OciError::Registry(_))));
    let digest = resolve(&reference, &access(LOGIN.1), &mut |_| ()).unwrap();
    assert_eq!(digest.hex(), image().digest());
}

#[test]
fn of_several_platforms_those_that_are_wanted_are_pulled() {
    let layer = |name: &str| vec![ImageLayer::default().file(name, 0o755, name.as_bytes()).finish()];
    let of = |arch: &str| Image::of(layer(arch), json!({"os": "linux", "architecture": arch, "config": {"Cmd": ["/a"]}}));
    let (mut blobs, mut manifests) = (BTreeMap::new(), Vec::new());
    for arch in ["amd64", "arm64", "s390x"] {
        let image = of(arch);
        let size = image.blobs().last().unwrap().1.len();
        let digest = format!("sha256:{}", image.digest());
        manifests.push(json!({"digest": digest, "size": size, "platform": {"os": "linux", "architecture": arch}}));
        blobs.extend(image.blobs().iter().cloned());
    }
    manifests.push(json!({"digest": format!("sha256:{}", "0".repeat(64)), "size": 3, "platform": {"os": "unknown", "architecture": "unknown"}}));
    let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string().into_bytes();
    let digest: String = Sha256::digest(&index).iter().map(|byte| format!("{byte:02x}")).collect();
    blobs.insert(digest.clone(), index);
    let tags = BTreeMap::from([("v1".to_owned(), digest)]);
    let registry = Registry::serve(blobs, tags, Manners::Honest);
    let architectures = |wanted: &[&str]| {
        let (packed, _) = pack(&source(&registry, "shop:v1", wanted))?;
        Ok::<_, String>(packed.platforms.into_iter().map(|platform| platform.architecture).collect::<Vec<_>>())
    };
    assert_eq!(architectures(&["arm64"]).unwrap(), ["arm64"]);
    assert_eq!(architectures(&["arm64", "amd64", "riscv64"]).unwrap(), ["amd64", "arm64"]);
    assert_eq!(architectures(&[]).unwrap(), ["amd64", "arm64", "s390x"]);
    let said = architectures(&["riscv64"]).unwrap_err();
    assert!(said.contains("not for linux/riscv64") && said.contains("linux/s390x"), "{said}");
    assert!(registry.requests().iter().all(|path| !path.contains("0000")));
}
