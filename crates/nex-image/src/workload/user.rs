//! The user of an image: by name or number, as its own list of accounts has it.

use std::collections::BTreeSet;

use nex_erofs::{Kind, Meta, Tree};

use super::WorkloadImageError;

/// Largest list of accounts that is read.
const MAX_ACCOUNTS: u64 = 1024 * 1024;

/// As whom an image's program would run where it had users of its own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    uid: u32,
    gids: BTreeSet<u32>,
    /// Its home directory.
    pub(super) home: String,
}

impl User {
    /// Finds the user that an image names: `NAME|UID[:GROUP|GID]`, root if it names none.
    pub(super) fn find(tree: &Tree, text: &str) -> Result<Self, WorkloadImageError> {
        let unknown = || WorkloadImageError::User(text.chars().take(80).collect());
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let accounts = read(tree, "etc/passwd");
        let by_number = user.parse::<u32>().ok();
        let found = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|account| {
            let uid = account.get(2).and_then(|uid| uid.parse::<u32>().ok());
            account.first() == Some(&user) || (by_number.is_some() && uid == by_number)
        });
        let field = |at: usize| found.as_ref().and_then(|account| account.get(at).copied());
        let uid = field(2).and_then(|uid| uid.parse().ok()).or(by_number).ok_or_else(unknown)?;
        let groups = read(tree, "etc/group");
        let group_id = |name: &str| {
            let mut lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
            lines.find(|line| line.first() == Some(&name)).and_then(|line| line.get(2)?.parse::<u32>().ok())
        };
        let gid = match group.filter(|group| !group.is_empty()) {
            Some(group) => group.parse().ok().or_else(|| group_id(group)).ok_or_else(unknown)?,
            None => field(3).and_then(|gid| gid.parse().ok()).unwrap_or(0),
        };
        let mut gids = BTreeSet::from([gid]);
        if group.is_none() {
            let name = field(0).unwrap_or(user);
            let is_member = |line: &[&str]| line.get(3).is_some_and(|members| members.split(',').any(|member| member == name));
            let lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
            gids.extend(lines.filter(|line| is_member(line)).filter_map(|line| line.get(2)?.parse::<u32>().ok()));
        }
        let home = field(5).filter(|home| home.starts_with('/')).unwrap_or("/").to_owned();
        Ok(Self { uid, gids, home })
    }

    /// What this user may do with an entry, as a mode for everybody: in a sandbox there is one user only, whose number is the sandbox's.
    /// Nothing gives away an identity.
    pub(super) fn mode_for_all(&self, kind: &Kind, meta: Meta) -> Meta {
        let mode = meta.mode;
        let bits = if self.uid == 0 {
            // Root reads and writes everything, and executes what anybody may execute.
            let executes = matches!(kind, Kind::Directory) || mode & 0o111 != 0;
            0o6 | u16::from(executes)
        } else if meta.uid == self.uid {
            mode >> 6
        } else if self.gids.contains(&meta.gid) {
            mode >> 3
        } else {
            mode
        };
        Meta { mode: (bits & 0o7) * 0o111, uid: 0, gid: 0, ..meta }
    }
}

fn read(tree: &Tree, path: &str) -> String {
    match tree.get(path) {
        Some((_, Kind::File(source))) => {
            let bytes = source.contents(MAX_ACCOUNTS).ok().flatten().unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use nex_erofs::Source;

    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::new(Meta::root(0o755));
        for (path, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\nodd:x\n"),
            ("etc/group", "root:x:0:\nwww:x:35:web,other\nextra:x:36:\n"),
        ] {
            tree.put(path, Meta::root(0o644), Kind::File(Source::Bytes(text.as_bytes().into()))).unwrap();
        }
        tree
    }

    #[test]
    fn a_user_is_found_by_name_or_number_and_need_not_have_an_account() {
        let find = |text: &str| User::find(&tree(), text).unwrap();
        let user = |uid, gids: &[u32], home: &str| User { uid, gids: gids.iter().copied().collect(), home: home.into() };
        assert_eq!(find(""), user(0, &[0], "/root"));
        assert_eq!(find("web"), user(33, &[34, 35], "/srv"));
        assert_eq!(find("33"), user(33, &[34, 35], "/srv"));
        assert_eq!(find("web:extra"), user(33, &[36], "/srv"));
        assert_eq!(find("1000"), user(1000, &[0], "/"));
        assert_eq!(find("1000:7"), user(1000, &[7], "/"));
        for text in ["nobody", "web:nogroup", "odd", "-1"] {
            assert!(User::find(&tree(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn everybody_may_do_what_the_images_user_may() {
        let meta = |mode, uid, gid| Meta { mode, uid, gid, mtime: 5 };
        let (root, web) = (User::find(&tree(), "").unwrap(), User::find(&tree(), "web").unwrap());
        let file = Kind::File(Source::Bytes([].into()));
        let of = |user: &User, kind: &Kind, meta| user.mode_for_all(kind, meta);
        assert_eq!(of(&root, &file, meta(0o4700, 33, 0)), meta(0o777, 0, 0));
        assert_eq!(of(&root, &file, meta(0o600, 33, 0)), meta(0o666, 0, 0));
        assert_eq!(of(&root, &Kind::Directory, meta(0o000, 33, 0)), meta(0o777, 0, 0));
        assert_eq!(of(&web, &file, meta(0o600, 0, 0)), meta(0o000, 0, 0));
        assert_eq!(of(&web, &file, meta(0o640, 0, 35)), meta(0o444, 0, 0));
        assert_eq!(of(&web, &file, meta(0o077, 33, 34)), meta(0o000, 0, 0), "the owner's bits count for the owner");
        assert_eq!(of(&web, &file, meta(0o640, 33, 0)), meta(0o666, 0, 0));
        assert_eq!(of(&web, &Kind::Directory, meta(0o1777, 0, 0)), meta(0o777, 0, 0));
    }
}
