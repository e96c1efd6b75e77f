//! Applies the entries of a tarball or layer to a tree. Symbolic links within paths are resolved inside the tree, as by a program in
//! the image; no path leaves it. Whiteouts remove entries of earlier layers.

use std::collections::VecDeque;
use std::io;

use nex_erofs::{Kind, Meta, Tree, TreeError};

/// Most symbolic links resolved in one path.
const MAX_HOPS: usize = 40;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Why a tarball or layer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive cannot be read.
    #[error("it cannot be read: it was cut off or is no tarball")]
    Read(#[from] io::Error),
    /// An entry cannot be added to the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The archive exceeds the budget of an image.
    #[error("it holds more than an image may, which is {most} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How many.
        most: u64,
    },
    /// A device, where there may be none.
    #[error("'{0}' is a device, which no workload is given; next: build the image without it")]
    Device(String),
    /// Sparse files are not supported.
    #[error("'{0}' is a sparse file of GNU tar; next: pack it without --sparse")]
    Sparse(String),
    /// A link without a target.
    #[error("'{0}' is a link without a target")]
    NoTarget(String),
    /// Symbolic links form a loop.
    #[error("'{0}' lies behind too many symbolic links")]
    Loop(String),
    /// The owner's id does not fit.
    #[error("'{path}' belongs to a user or group beyond 32 bits")]
    Owner {
        /// The entry.
        path: String,
        /// Why.
        source: std::num::TryFromIntError,
    },
}

/// An entry of an archive.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) meta: Meta,
    pub(crate) kind: EntryKind,
}

/// Type of an entry.
#[derive(Debug)]
pub(crate) enum EntryKind {
    Node(Kind),
    /// A hard link to this path.
    HardLink(Vec<u8>),
}

/// How names that start with `.wh.` are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whiteouts {
    /// As ordinary names: the archive is not a layer.
    Literal,
    /// As whiteouts.
    Apply,
}

/// Applies all entries; later ones replace earlier ones.
pub(crate) fn apply(tree: &mut Tree, entries: Vec<Entry>, mode: Whiteouts) -> Result<(), LayerError> {
    let (whiteouts, entries): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| mode == Whiteouts::Apply && name(&entry.path).starts_with(WHITEOUT));
    // Whiteouts first: they concern the layers below, wherever they are in this one.
    for Entry { path, .. } in whiteouts {
        whiteout(tree, &path)?;
    }
    for Entry { path, meta, kind } in entries {
        let at = resolve(tree, &path)?;
        match kind {
            EntryKind::Node(kind) => tree.put(&at, meta, kind)?,
            EntryKind::HardLink(target) => {
                let target = resolve(tree, &target)?;
                // Self-link: no-op.
                if target != at {
                    tree.link(&at, &target)?;
                }
            }
        }
    }
    Ok(())
}

fn whiteout(tree: &mut Tree, path: &[u8]) -> Result<(), LayerError> {
    let at = resolve(tree, path)?;
    let mut parts: Vec<&[u8]> = at.split(|byte| *byte == b'/').collect();
    let last = parts.pop().unwrap_or_default();
    let dir = parts.join(&b'/');
    let below = |name: &[u8]| [dir.as_slice(), b"/", name].concat();
    if last == OPAQUE {
        let names: Vec<Vec<u8>> = tree.names(&dir).map(below).collect();
        for name in names {
            tree.remove(name)?;
        }
    } else if let Some(name) = last.strip_prefix(WHITEOUT)
        && !name.starts_with(WHITEOUT)
        && !name.is_empty()
    {
        tree.remove(below(name))?;
    }
    Ok(())
}

fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').find(|part| !part.is_empty()).unwrap_or_default()
}

/// Resolves a path, except its last component. `..` in the path itself is refused; in link targets it stops at the root.
pub(crate) fn resolve(tree: &Tree, path: &[u8]) -> Result<Vec<u8>, LayerError> {
    let shown = || String::from_utf8_lossy(path).into_owned();
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
    };
    let mut todo: VecDeque<Vec<u8>> = parts(path).into();
    if todo.iter().any(|part| part == b"..") {
        return Err(TreeError::Path(shown()).into());
    }
    let last = todo.pop_back().unwrap_or_default();
    let (mut done, mut hops): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
    while let Some(part) = todo.pop_front() {
        if part == b".." {
            done.pop();
            continue;
        }
        done.push(part);
        if let Some((_, Kind::Symlink(target))) = tree.get(done.join(&b'/')) {
            hops += 1;
            if hops > MAX_HOPS {
                return Err(LayerError::Loop(shown()));
            }
            done.pop();
            if target.starts_with(b"/") {
                done.clear();
            }
            for part in parts(target).into_iter().rev() {
                todo.push_front(part);
            }
        }
    }
    done.push(last);
    Ok(done.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use nex_erofs::Source;

    use super::*;

    fn file(path: &str) -> Entry {
        node(path, Kind::File(Source::Bytes(path.as_bytes().into())))
    }

    fn node(path: &str, kind: Kind) -> Entry {
        Entry { path: path.as_bytes().to_vec(), meta: Meta::root(0o644), kind: EntryKind::Node(kind) }
    }

    fn symlink(path: &str, target: &str) -> Entry {
        node(path, Kind::Symlink(target.as_bytes().to_vec()))
    }

    fn link(path: &str, target: &str) -> Entry {
        let kind = EntryKind::HardLink(target.as_bytes().to_vec());
        Entry { path: path.as_bytes().to_vec(), meta: Meta::root(0o644), kind }
    }

    fn tree(layers: Vec<Vec<Entry>>) -> Result<Tree, LayerError> {
        let mut tree = Tree::new(Meta::root(0o755));
        for entries in layers {
            apply(&mut tree, entries, Whiteouts::Apply)?;
        }
        Ok(tree)
    }

    fn names(tree: &Tree, dir: &str) -> Vec<String> {
        tree.names(dir).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn whiteouts_take_away_what_is_below_and_nothing_of_their_own_layer() {
        let below = || vec![file("etc/a"), file("etc/b"), file("opt/x/deep/y"), file("opt/z")];
        let tree = tree(vec![
            below(),
            vec![
                file("etc/c"),
                file("etc/.wh.a"),
                file("etc/a"),
                file("opt/new"),
                file("opt/.wh..wh..opq"),
                file("etc/.wh.none"),
            ],
            vec![file("etc/.wh.b"), file("etc/.wh..wh.plnk")],
        ])
        .unwrap();
        assert_eq!((names(&tree, "etc"), names(&tree, "opt")), (vec!["a".to_owned(), "c".to_owned()], vec!["new".to_owned()]));
        let mut plain = Tree::new(Meta::root(0o755));
        apply(&mut plain, vec![file("a"), file(".wh.a")], Whiteouts::Literal).unwrap();
        assert_eq!(names(&plain, ""), [".wh.a", "a"]);
    }

    #[test]
    fn links_in_paths_are_followed_and_never_out_of_the_tree() {
        let tree = tree(vec![
            vec![symlink("lib", "usr/lib"), symlink("out", "../../../etc"), symlink("abs", "/var/../srv"), file("usr/lib/a")],
            vec![file("lib/b"), file("out/passwd"), file("abs/c"), link("hard", "lib/b")],
        ])
        .unwrap();
        assert_eq!((names(&tree, "usr/lib"), names(&tree, "etc")), (vec!["a".into(), "b".into()], vec!["passwd".to_owned()]));
        assert_eq!(names(&tree, "srv"), ["c"]);
        assert!(matches!(tree.get("hard").unwrap().1, Kind::File(_)));
        assert!(matches!(tree.get("lib").unwrap().1, Kind::Symlink(_)), "the last part is not followed");
    }

    #[test]
    fn paths_out_of_the_tree_loops_and_dangling_hard_links_are_refused() {
        let refused = |entries| tree(vec![entries]).unwrap_err().to_string();
        assert!(refused(vec![file("../../etc/passwd")]).contains("no path of an image"));
        assert!(refused(vec![file("a"), link("b", "../a")]).contains("no path of an image"));
        assert!(refused(vec![symlink("a", "b"), symlink("b", "a"), file("a/x")]).contains("too many symbolic links"));
        assert!(refused(vec![link("b", "none")]).contains("which is no file of the image"));
        assert!(refused(vec![file("f"), file("f/x")]).contains("below something that is no directory"));
        assert!(
            names(&tree(vec![vec![file("/abs"), link("abs", "abs")]]).unwrap(), "").contains(&"abs".to_owned()),
            "kept inside"
        );
    }
}
