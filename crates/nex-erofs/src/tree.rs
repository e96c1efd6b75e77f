//! The content of an image as a tree. Paths are resolved literally: `..` is refused and symbolic links are not followed, so no entry
//! can end up outside.

use std::collections::BTreeMap;

use crate::source::Source;

/// Longest name, in bytes.
pub const MAX_NAME: usize = 255;
/// Longest target of a symbolic link, in bytes.
pub const MAX_TARGET: usize = 4095;
/// Deepest directory.
pub const MAX_DEPTH: usize = 256;

/// Why an entry cannot be added.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// The path contains `..` or a NUL byte, or is the root where an entry in it is required.
    #[error("'{0}' is no path of an image; next: use a path from the root, without '..'")]
    Path(String),
    /// A name, link target or path exceeds a limit.
    #[error(
        "'{0}' is too long for an image: names may have {MAX_NAME} bytes, link targets {MAX_TARGET}, paths {MAX_DEPTH} components"
    )]
    TooLong(String),
    /// A parent exists and is not a directory.
    #[error("'{0}' lies below something that is no directory")]
    NotADirectory(String),
    /// The target of a hard link does not exist or is a directory.
    #[error("'{path}' is a hard link to '{target}', which is no file of the image")]
    NoTarget {
        /// The link.
        path: String,
        /// Its target.
        target: String,
    },
}

/// Mode, owner and modification time of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, with set-id and sticky; the rest is ignored.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
}

impl Meta {
    /// Owned by root, modified in 1970.
    #[must_use]
    pub fn root(mode: u16) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: 0 }
    }
}

/// Type of an entry.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the file types of Unix")]
pub enum Kind {
    Directory,
    File(Source),
    Symlink(Vec<u8>),
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// Index of a node in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(usize);

impl NodeId {
    /// The root.
    pub(crate) const ROOT: Self = Self(0);
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) meta: Meta,
    pub(crate) kind: Kind,
    /// Entries of a directory; empty for other types.
    pub(crate) children: BTreeMap<Vec<u8>, NodeId>,
}

/// A tree of files.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    /// Creates a tree that is only a root.
    #[must_use]
    pub fn new(root: Meta) -> Self {
        Self { nodes: vec![Node { meta: root, kind: Kind::Directory, children: BTreeMap::new() }] }
    }

    /// Adds an entry at a path (bytes; a leading `/` and `.` are ignored) and replaces an existing one, except that a directory over a
    /// directory keeps its entries. Missing parents are created, owned by root, mode 0755. The empty path sets the root's own meta.
    ///
    /// # Errors
    /// The path is invalid, too long, or leads through something that is not a directory.
    pub fn put(&mut self, path: impl AsRef<[u8]>, meta: Meta, kind: Kind) -> Result<(), TreeError> {
        let path = path.as_ref();
        if matches!(&kind, Kind::Symlink(target) if target.len() > MAX_TARGET || target.is_empty() || target.contains(&0)) {
            return Err(TreeError::TooLong(shown(path)));
        }
        let parts = parts(path)?;
        let Some((name, parents)) = parts.split_last() else {
            let Kind::Directory = kind else { return Err(TreeError::Path(shown(path))) };
            self.node_mut(NodeId::ROOT).meta = meta;
            return Ok(());
        };
        let parent = self.directory(parents, path)?;
        if let (Some(&there), Kind::Directory) = (self.node(parent).children.get(*name), &kind)
            && matches!(self.node(there).kind, Kind::Directory)
        {
            self.node_mut(there).meta = meta;
            return Ok(());
        }
        let id = self.add(Node { meta, kind, children: BTreeMap::new() });
        self.node_mut(parent).children.insert(name.to_vec(), id);
        Ok(())
    }

    /// Adds a hard link to an entry that is not a directory.
    ///
    /// # Errors
    /// As [`Tree::put`], and if the target does not exist or is a directory.
    pub fn link(&mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Result<(), TreeError> {
        let (path, target) = (path.as_ref(), target.as_ref());
        let found = self.find(&parts(target)?).filter(|id| !matches!(self.node(*id).kind, Kind::Directory));
        let id = found.ok_or_else(|| TreeError::NoTarget { path: shown(path), target: shown(target) })?;
        let parts = parts(path)?;
        let (name, parents) = parts.split_last().ok_or_else(|| TreeError::Path(shown(path)))?;
        let parent = self.directory(parents, path)?;
        self.node_mut(parent).children.insert(name.to_vec(), id);
        Ok(())
    }

    /// Removes an entry with everything below it; returns whether it existed.
    ///
    /// # Errors
    /// The path is invalid, too long, or the root.
    pub fn remove(&mut self, path: impl AsRef<[u8]>) -> Result<bool, TreeError> {
        let path = path.as_ref();
        let parts = parts(path)?;
        let (name, parents) = parts.split_last().ok_or_else(|| TreeError::Path(shown(path)))?;
        Ok(self.find(parents).is_some_and(|parent| self.node_mut(parent).children.remove(*name).is_some()))
    }

    /// The entry at a path; links are not followed.
    #[must_use]
    pub fn get(&self, path: impl AsRef<[u8]>) -> Option<(&Meta, &Kind)> {
        let node = self.node(self.find(&parts(path.as_ref()).ok()?)?);
        Some((&node.meta, &node.kind))
    }

    /// The sorted names in a directory; empty if it does not exist.
    pub fn names(&self, path: impl AsRef<[u8]>) -> impl Iterator<Item = &[u8]> {
        let found = parts(path.as_ref()).ok().and_then(|parts| self.find(&parts));
        found.into_iter().flat_map(|id| self.node(id).children.keys().map(Vec::as_slice))
    }

    /// Replaces mode, owner and time of every entry.
    pub fn map_meta(&mut self, map: impl Fn(&Kind, Meta) -> Meta) {
        for node in &mut self.nodes {
            node.meta = map(&node.kind, node.meta);
        }
    }

    /// Number of entries ever added, which determines the memory used.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.nodes.len()
    }

    #[expect(clippy::indexing_slicing, reason = "only `add` makes ids, and nodes are never removed")]
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    #[expect(clippy::indexing_slicing, reason = "only `add` makes ids, and nodes are never removed")]
    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0]
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    fn find(&self, parts: &[&[u8]]) -> Option<NodeId> {
        parts.iter().try_fold(NodeId::ROOT, |at, name| self.node(at).children.get(*name).copied())
    }

    fn directory(&mut self, parts: &[&[u8]], whole: &[u8]) -> Result<NodeId, TreeError> {
        let mut at = NodeId::ROOT;
        for name in parts {
            at = match self.node(at).children.get(*name).copied() {
                Some(there) => there,
                None => {
                    let meta = Meta { mtime: self.node(NodeId::ROOT).meta.mtime, ..Meta::root(0o755) };
                    let id = self.add(Node { meta, kind: Kind::Directory, children: BTreeMap::new() });
                    self.node_mut(at).children.insert(name.to_vec(), id);
                    id
                }
            };
            if !matches!(self.node(at).kind, Kind::Directory) {
                return Err(TreeError::NotADirectory(shown(whole)));
            }
        }
        Ok(at)
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn parts(path: &[u8]) -> Result<Vec<&[u8]>, TreeError> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.iter().any(|part| *part == b".." || part.contains(&0)) {
        return Err(TreeError::Path(shown(path)));
    }
    if parts.len() > MAX_DEPTH || parts.iter().any(|part| part.len() > MAX_NAME) {
        return Err(TreeError::TooLong(shown(path)));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Kind {
        Kind::File(Source::Bytes(text.as_bytes().into()))
    }

    #[test]
    fn a_path_never_leaves_the_tree() {
        let mut tree = Tree::new(Meta::root(0o755));
        for path in ["../a", "a/../../b", "a/..", "a\0b"] {
            assert_eq!(tree.put(path, Meta::root(0o644), file("")), Err(TreeError::Path(path.into())), "{path}");
        }
        assert!(matches!(tree.put("", Meta::root(0o644), file("")), Err(TreeError::Path(_))));
        assert!(matches!(tree.put("x".repeat(256), Meta::root(0o644), file("")), Err(TreeError::TooLong(_))));
        assert!(matches!(tree.put("d/".repeat(300), Meta::root(0o644), file("")), Err(TreeError::TooLong(_))));
        tree.put("link", Meta::root(0o777), Kind::Symlink(b"/etc".to_vec())).unwrap();
        assert!(matches!(tree.put("link/passwd", Meta::root(0o644), file("")), Err(TreeError::NotADirectory(_))));
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one_and_a_directory_keeps_what_is_in_it() {
        let mut tree = Tree::new(Meta::root(0o755));
        tree.put("/etc/./passwd", Meta::root(0o644), file("a")).unwrap();
        tree.put("etc/", Meta::root(0o700), Kind::Directory).unwrap();
        assert_eq!(tree.get("etc").unwrap().0.mode, 0o700);
        assert_eq!(tree.names("etc").collect::<Vec<_>>(), [b"passwd"]);
        tree.link("etc/shadow", "etc/passwd").unwrap();
        assert!(matches!(tree.link("x", "etc"), Err(TreeError::NoTarget { .. })));
        assert!(tree.remove("etc/passwd").unwrap() && !tree.remove("etc/passwd").unwrap());
        assert!(matches!(tree.get("etc/shadow").unwrap().1, Kind::File(_)));
        tree.put("etc", Meta::root(0o644), file("no directory now")).unwrap();
        assert!(tree.get("etc/shadow").is_none());
    }
}
