//! Agents whose root is an image: what the jail holds there, and that nothing of it stays.

use std::fs::{self, File};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nex_erofs::{Kind, Meta, Options, Source, Tree};
use nex_process::jail::{IMAGE_DIRECTORIES, IMAGE_FILES};
use nex_sandbox::{Sandbox, SandboxSpec};

use crate::fixture::{Fixture, fixture, jail_agent, reported, soon, spec};

/// The workload is where agents of these tests look for it, setuid and root's: more than any builder lets through.
fn image(dir: &Path, more: impl FnOnce(&mut Tree)) -> PathBuf {
    let mut tree = Tree::new(Meta::root(0o755));
    for name in IMAGE_DIRECTORIES {
        tree.put(name, Meta::root(0o555), Kind::Directory).unwrap();
    }
    for name in IMAGE_FILES {
        tree.put(name, Meta::root(0o444), Kind::File(Source::Bytes([].into()))).unwrap();
    }
    tree.put("artifact/workload", Meta::root(0o6755), Kind::File(Source::Path(jail_agent()))).unwrap();
    tree.put("usr/theirs", Meta::root(0o666), Kind::File(Source::Bytes(b"image".as_slice().into()))).unwrap();
    more(&mut tree);
    let path = dir.join("image.erofs");
    tree.write(&mut File::create(&path).unwrap(), &Options::default()).unwrap();
    path
}

fn takes_images(test: &str, fixture: &Fixture) -> bool {
    match fixture.provider.takes_images() {
        Ok(()) => true,
        Err(why) => {
            nex_testkit::announce(&test, &why);
            false
        }
    }
}

async fn run(fixture: &Fixture, id: &str, identity: &str, image: &Path) -> Box<dyn Sandbox> {
    let spec = SandboxSpec { image: Some(image.to_owned()), ..spec(id, identity) };
    Box::new(fixture.provider.make(spec, soon()).await.unwrap())
}

/// Loop devices with a file that is gone or going; those of others are not looked at.
fn loops_of(file: &Path) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").unwrap().flatten().map(|entry| entry.path().join("loop/backing_file"));
    devices.filter_map(|path| fs::read_to_string(path).ok()).filter(|line| line.contains(file.to_str().unwrap())).collect()
}

#[tokio::test]
async fn a_workload_finds_no_way_out_of_an_image_either() {
    let fixture = fixture().await;
    if !takes_images("a_workload_finds_no_way_out_of_an_image_either", &fixture) {
        return;
    }
    let secret = fixture.state.path().join("node.key");
    fs::write(&secret, "secret").unwrap();
    // What a hostile image has that is to lead to the host, before its root is let go and after.
    let image = image(fixture.state.path(), |tree| {
        for (name, target) in [("link", "/.nex/old"), ("etc/up", "../../../../.."), ("out", "/proc/1/root")] {
            tree.put(name, Meta::root(0o777), Kind::Symlink(target.as_bytes().to_vec())).unwrap();
        }
        tree.put("sda", Meta::root(0o666), Kind::BlockDevice { major: 8, minor: 0 }).unwrap();
        tree.put("mem", Meta::root(0o666), Kind::CharDevice { major: 1, minor: 1 }).unwrap();
    });
    let name = format!("nex-test-{}", fixture.node);
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let before = fs::read(&image).unwrap();
    let identity = format!("run --escape {} {} {name}", secret.display(), std::process::id());
    let sandbox = run(&fixture, "im1", &identity, &image).await;
    assert_eq!(reported(sandbox.as_ref(), "said").await, "", "every line is an escape");
    sandbox.stop(super::GRACE).await;
    let identity = format!("run --escape-image {} /link /etc/up /out", secret.display());
    let sandbox = run(&fixture, "im2", &identity, &image).await;
    assert_eq!(reported(sandbox.as_ref(), "said").await, "", "every line is an escape");
    sandbox.stop(super::GRACE).await;
    fixture.leaves_no_trace().await;
    assert_eq!(loops_of(&image), Vec::<String>::new());
    assert!(fs::read(&image).unwrap() == before, "the image stays as it is");
    assert!(!Path::new("/written-by-an-image").exists());
}

#[tokio::test]
async fn a_setuid_program_of_an_image_gains_nothing() {
    let fixture = fixture().await;
    if !takes_images("a_setuid_program_of_an_image_gains_nothing", &fixture) {
        return;
    }
    let image = image(fixture.state.path(), |_| ());
    assert_eq!(fs::metadata(&image).unwrap().uid(), 0);
    let sandbox = run(&fixture, "im3", "run --whoami", &image).await;
    let uid = sandbox.record().uid.unwrap();
    assert_eq!(reported(sandbox.as_ref(), "said").await, format!("{uid}\n"));
    sandbox.stop(super::GRACE).await;
}

#[tokio::test]
async fn a_file_that_is_no_image_makes_no_agent_and_leaves_nothing() {
    let fixture = fixture().await;
    if !takes_images("a_file_that_is_no_image_makes_no_agent_and_leaves_nothing", &fixture) {
        return;
    }
    let path = fixture.state.path().join("image.erofs");
    for (id, bytes) in [("im4", vec![]), ("im5", vec![0; 8192])] {
        fs::write(&path, bytes).unwrap();
        let sandbox = run(&fixture, id, "stay", &path).await;
        let report = sandbox.exited().await;
        assert!(report.to_string().contains("mounting the image"), "{report}");
        sandbox.stop(super::GRACE).await;
    }
    fixture.leaves_no_trace().await;
    assert_eq!(loops_of(&path), Vec::<String>::new());
}
