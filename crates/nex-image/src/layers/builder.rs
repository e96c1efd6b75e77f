//! An image that is being put together: its tree, its contents, and what it may still cost.

use nex_erofs::Tree;

use super::spool::{Budget, Spool};

/// What is being loaded, and what it may cost.
#[derive(Debug)]
pub(crate) struct ImageBuilder {
    pub(crate) tree: Tree,
    pub(crate) spool: Spool,
    pub(crate) budget: Budget,
    /// Times later than this are set back to it.
    pub(crate) latest: Option<u64>,
}

impl ImageBuilder {
    /// A time as it may be.
    pub(crate) fn time(&self, mtime: u64) -> u64 {
        self.latest.map_or(mtime, |latest| mtime.min(latest))
    }
}
