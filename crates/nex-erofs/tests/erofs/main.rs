//! Images, read by a reader of our own, by the tools of erofs-utils and by the kernel.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod reader;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use nex_erofs::{Kind, Meta, Options, Source, Tree, drive, identify};
use nex_testkit::skip;
use proptest::prelude::*;

const OPTIONS: Options = Options { mtime: 7, uuid: [1; 16], label: *b"a label\0\0\0\0\0\0\0\0\0" };

fn image(tree: &Tree) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let written = tree.write(&mut file.reopen().unwrap(), &OPTIONS).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    assert_eq!(written.bytes, bytes.len() as u64);
    bytes
}

fn bytes(content: &[u8]) -> Kind {
    Kind::File(Source::Bytes(content.into()))
}

#[expect(clippy::disallowed_methods, reason = "a tool that reads the image, run to its end")]
fn tool(program: &str, arguments: &[&str]) -> Option<Output> {
    std::process::Command::new(program).args(arguments).output().ok()
}

/// Something of every kind, and the sizes at which layouts change.
fn everything() -> Tree {
    let mut tree = Tree::new(Meta::root(0o755));
    for size in [0, 1, 1023, 1024, 1025, 4031, 4032, 4033, 4095, 4096, 4097, 70_001] {
        let content: Vec<u8> = (0..size).map(|index: u32| u8::try_from(index % 251).unwrap()).collect();
        tree.put(format!("sizes/{size}"), Meta { mode: 0o4711, uid: 70_000, gid: 100_000, mtime: 1 << 33 }, bytes(&content))
            .unwrap();
    }
    for index in 0..1000 {
        tree.put(format!("many/a name that is not short at all, number {index}"), Meta::root(0o600), bytes(b"x")).unwrap();
    }
    tree.put("dev/console", Meta::root(0o600), Kind::CharDevice { major: 5, minor: 1 }).unwrap();
    tree.put("dev/vda", Meta::root(0o660), Kind::BlockDevice { major: 254, minor: 300 }).unwrap();
    tree.put("run/fifo", Meta::root(0o644), Kind::Fifo).unwrap();
    tree.put("run/socket", Meta::root(0o644), Kind::Socket).unwrap();
    tree.put("tmp", Meta::root(0o1777), Kind::Directory).unwrap();
    tree.put("!before the dots", Meta::root(0o644), bytes(b"!")).unwrap();
    tree.put("link", Meta::root(0o777), Kind::Symlink(b"sizes/4096".to_vec())).unwrap();
    for len in [4031, 4032, 4033, 4095] {
        tree.put(format!("links/{len}"), Meta::root(0o777), Kind::Symlink(vec![b'x'; len])).unwrap();
    }
    tree.link("second name", "sizes/4097").unwrap();
    tree
}

#[test]
fn every_entry_is_read_back() {
    let all = reader::read(&image(&everything()));
    let big = &all[b"sizes/70001".as_slice()];
    assert_eq!((big.mode, big.uid, big.gid, big.mtime), (0o104_711, 70_000, 100_000, 1 << 33));
    assert_eq!(big.content.len(), 70_001);
    assert_eq!(all[b"links/4095".as_slice()].content, vec![b'x'; 4095]);
    assert_eq!(all[b"dev/console".as_slice()].device, 0x501);
    let (first, second) = (&all[b"sizes/4097".as_slice()], &all[b"second name".as_slice()]);
    assert_eq!((first, first.links), (second, 2));
    assert_eq!((all[b"".as_slice()].links, all[b"tmp".as_slice()].links), (8, 2));
    assert_eq!(all.keys().filter(|path| path.starts_with(b"many/")).count(), 1000);
}

#[test]
fn the_same_tree_gives_the_same_bytes_whatever_the_order() {
    let build = |order: &[&str]| {
        let mut tree = Tree::new(Meta::root(0o755));
        for name in order {
            tree.put(*name, Meta::root(0o644), bytes(name.as_bytes())).unwrap();
        }
        image(&tree)
    };
    assert!(build(&["a", "b/c", "b/d", "e"]) == build(&["e", "b/d", "a", "b/c"]));
}

#[test]
fn only_an_image_is_identified_as_one() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(identify(file.path()).unwrap(), None);
    let image = image(&everything());
    std::fs::write(file.path(), &image).unwrap();
    assert_eq!(identify(file.path()).unwrap(), Some(OPTIONS));
    std::fs::write(file.path(), &image[..image.len() - 1]).unwrap();
    assert_eq!(identify(file.path()).unwrap(), None, "what was cut off is no image");
    assert!(identify(Path::new("/no/such/file")).is_err());
}

#[test]
fn fsck_and_dump_accept_an_image() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), image(&everything())).unwrap();
    let path = file.path().to_str().unwrap();
    let Some(checked) = tool("fsck.erofs", &["--extract", path]) else {
        skip!("fsck_and_dump_accept_an_image", "fsck.erofs is not installed");
    };
    assert!(checked.status.success(), "{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    let dumped = tool("dump.erofs", &["-s", path]).unwrap();
    let said = String::from_utf8_lossy(&dumped.stdout).into_owned();
    assert!(said.contains("Filesystem inode count:                       1029"), "{said}");
    assert!(said.contains("Filesystem UUID:                              01010101-"), "{said}");
}

#[test]
fn the_kernel_mounts_an_image() {
    const NAME: &str = "the_kernel_mounts_an_image";
    let dir = tempfile::tempdir().unwrap();
    let (file, at) = (dir.path().join("image"), dir.path().join("mounted"));
    std::fs::write(&file, image(&everything())).unwrap();
    std::fs::create_dir(&at).unwrap();
    let mounted = tool("mount", &["-t", "erofs", "-o", "loop,ro", file.to_str().unwrap(), at.to_str().unwrap()]);
    let Some(said) = mounted else { skip!(NAME, "mount is not installed") };
    if !said.status.success() {
        let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
        let has_erofs = std::fs::read_to_string("/proc/filesystems").unwrap().contains("\terofs\n");
        let cannot = ["permission denied", "must be superuser", "loop device", "not permitted"];
        // A kernel that can mount EROFS but refuses this image has found a fault in it.
        assert!(!has_erofs || cannot.iter().any(|reason| stderr.contains(reason)), "{stderr}");
        skip!(NAME, format!("no erofs mounts here: {}", stderr.trim()));
    }
    let seen = std::panic::catch_unwind(|| look_at(&at));
    assert!(tool("umount", &[at.to_str().unwrap()]).unwrap().status.success());
    seen.unwrap();
}

fn look_at(root: &Path) {
    let content = std::fs::read(root.join("link")).unwrap();
    assert_eq!(content, (0..4096_u32).map(|index| u8::try_from(index % 251).unwrap()).collect::<Vec<_>>());
    assert_eq!(std::fs::read_dir(root.join("many")).unwrap().count(), 1000);
    for index in 0..1000 {
        let name = format!("many/a name that is not short at all, number {index}");
        assert_eq!(std::fs::read(root.join(name)).unwrap(), b"x");
    }
    for (name, size) in [("1025", 1025), ("4031", 4031), ("4033", 4033), ("70001", 70_001)] {
        assert_eq!(std::fs::read(root.join("sizes").join(name)).unwrap().len(), size);
    }
    assert_eq!(std::fs::read_link(root.join("links/4095")).unwrap().as_os_str().len(), 4095);
    let meta = std::fs::metadata(root.join("second name")).unwrap();
    assert_eq!((meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.nlink()), (0o104_711, 70_000, 100_000, 1 << 33, 2));
    assert!(std::fs::metadata(root.join("dev/console")).unwrap().file_type().is_char_device());
    assert_eq!(std::fs::metadata(root.join("dev/vda")).unwrap().rdev(), (254 << 8) | 44 | (256 << 12));
    assert!(std::fs::metadata(root.join("run/fifo")).unwrap().file_type().is_fifo());
}

#[test]
fn a_drive_has_the_artifact_and_ends_with_a_whole_block() {
    let dir = tempfile::tempdir().unwrap();
    let (file, into) = (dir.path().join("elf"), dir.path().join("drive"));
    for size in [0, 1, 4096, 1_000_001] {
        std::fs::write(&file, vec![b'a'; size]).unwrap();
        let written = drive(&file, &into).unwrap();
        let image = std::fs::read(&into).unwrap();
        assert_eq!((written.bytes, written.bytes % 4096), (image.len() as u64, 0));
        let all = reader::read(&image);
        let artifact = &all[b"artifact".as_slice()];
        assert_eq!((artifact.mode, artifact.uid, artifact.content.len()), (0o100_555, 0, size));
        let again = drive(&file, &into).unwrap_err().to_string();
        assert!(again.contains("nothing has that name"), "{again}");
        assert_eq!(std::fs::read(&into).unwrap(), image, "what is there is not touched");
        std::fs::remove_file(&into).unwrap();
    }
    assert!(drive(Path::new("/no/such/file"), &into).is_err());
    assert!(!into.exists());
}

#[test]
fn contents_come_from_files_and_parts_of_files() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[b"left out".to_vec(), vec![b'y'; 9000]].concat()).unwrap();
    let open = Arc::new(File::open(file.path()).unwrap());
    let mut tree = Tree::new(Meta::root(0o755));
    let span = |offset, len| Kind::File(Source::Span { file: Arc::clone(&open), offset, len });
    tree.put("part", Meta::root(0o644), span(8, 9000)).unwrap();
    tree.put("short", Meta::root(0o644), span(0, 8)).unwrap();
    tree.put("whole", Meta::root(0o644), Kind::File(Source::Path(file.path().to_owned()))).unwrap();
    let all = reader::read(&image(&tree));
    assert_eq!(all[b"part".as_slice()].content, vec![b'y'; 9000]);
    assert_eq!(all[b"short".as_slice()].content, b"left out");
    assert_eq!(all[b"whole".as_slice()].content.len(), 9008);
    tree.put("too long", Meta::root(0o644), span(8, 9001)).unwrap();
    let error = tree.write(&mut tempfile::tempfile().unwrap(), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("shrank below 9001 bytes"), "{error}");
}

fn entry() -> impl Strategy<Value = (Vec<u8>, Meta, Vec<u8>)> {
    let name = prop::collection::vec(prop::sample::select(b"ab.-\xc3\x28 ~!".to_vec()), 1..5);
    let path = prop::collection::vec(name, 1..4).prop_map(|parts| parts.join(&b'/'));
    let meta = (0..0o10000_u16, any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(mode, uid, gid, mtime)| Meta {
        mode,
        uid,
        gid,
        mtime: mtime.into(),
    });
    (path, meta, prop_oneof![prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(Just(b'z'), 3900..9000)])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_read_back_as_it_was_put(entries in prop::collection::vec(entry(), 0..120)) {
        let mut tree = Tree::new(Meta::root(0o755));
        let mut expected: BTreeMap<Vec<u8>, (Meta, Vec<u8>)> = BTreeMap::new();
        for (path, meta, content) in entries {
            // A path with '..' or below a file is refused; what is replaced takes what is below it along.
            if tree.put(&path, meta, bytes(&content)).is_ok() {
                let path = path.split(|byte| *byte == b'/').filter(|part| *part != b".").collect::<Vec<_>>().join(&b'/');
                let below = [path.as_slice(), b"/"].concat();
                expected.retain(|other, _| !other.starts_with(&below));
                expected.insert(path, (meta, content));
            }
        }
        let files: BTreeMap<Vec<u8>, (Meta, Vec<u8>)> = reader::read(&image(&tree))
            .into_iter()
            .filter(|(_, entry)| entry.mode & 0o170_000 == 0o100_000)
            .map(|(path, entry)| {
                let meta = Meta { mode: entry.mode & 0o7777, uid: entry.uid, gid: entry.gid, mtime: entry.mtime };
                (path, (meta, entry.content))
            })
            .collect();
        prop_assert_eq!(files, expected);
    }
}
