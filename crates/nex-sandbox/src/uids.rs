//! Allocates uids: one for each running agent, none used twice.

use std::collections::BTreeSet;

/// How many agents can live at once.
pub(crate) const MAX_UIDS: u32 = 65_536;

/// The uids from a base on. Nodes of one host start at different offsets, so that they seldom collide.
#[derive(Debug)]
pub(crate) struct UidAllocator {
    base: u32,
    next: u32,
    used: BTreeSet<u32>,
}

impl UidAllocator {
    pub(crate) fn new(base: u32, node: &str) -> Self {
        let next = node.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte)) % MAX_UIDS;
        Self { base, next, used: BTreeSet::new() }
    }

    /// A free uid, or `None` if all are used. A freed uid is reused last.
    pub(crate) fn take(&mut self) -> Option<u32> {
        for _ in 0..MAX_UIDS {
            let uid = self.base.checked_add(self.next)?;
            self.next = (self.next + 1) % MAX_UIDS;
            if self.used.insert(uid) {
                return Some(uid);
            }
        }
        None
    }

    /// Whether this uid is in the range of agents.
    pub(crate) fn is_ours(&self, uid: u32) -> bool {
        (self.base..self.base.saturating_add(MAX_UIDS)).contains(&uid)
    }

    /// Marks a uid that an agent of an earlier node process has.
    pub(crate) fn reserve(&mut self, uid: Option<u32>) {
        self.used.extend(uid);
    }

    pub(crate) fn free(&mut self, uid: Option<u32>) {
        if let Some(uid) = uid {
            self.used.remove(&uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_uid_is_given_twice_and_a_freed_one_comes_last() {
        let mut uids = UidAllocator::new(712_000, "n1");
        let first = uids.take();
        uids.reserve(first.map(|uid| uid + 1));
        let second = uids.take();
        assert_eq!(second, first.map(|uid| uid + 2));
        uids.free(first);
        let taken: BTreeSet<_> = (0..MAX_UIDS - 3).map(|_| uids.take().unwrap()).collect();
        assert_eq!(taken.len(), 65_533);
        assert_eq!(uids.take(), first);
        assert_eq!(uids.take(), None);
        assert!(uids.is_ours(712_000) && !uids.is_ours(0) && !uids.is_ours(712_000 + MAX_UIDS));
    }
}
