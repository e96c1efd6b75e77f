//! An image that is being put together: its tree, its contents, and what it may still cost.

use nex_erofs::Tree;

use super::spool::{Budget, Spool};

/// What is being gathered, and what it may cost.
#[derive(Debug)]
pub(crate) struct Into {
    pub(crate) tree: Tree,
    pub(crate) spool: Spool,
    pub(crate) budget: Budget,
    /// Times later than this are set back to it.
    pub(crate) latest: Option<u64>,
}

impl Into {
    /// A time as it may be.
    pub(crate) fn time(&self, mtime: u64) -> u64 {
        self.latest.map_or(mtime, |latest| mtime.min(latest))
    }
}
