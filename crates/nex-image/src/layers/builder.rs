//! An image under construction.

use nex_erofs::Tree;

use super::spool::{Budget, Spool};

/// What becomes of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Devices {
    /// They are in the image.
    Keep,
    /// There may be none, but for those of `/dev`, which are left out.
    None,
}

/// Collects the tree and the contents of an image, within a budget.
#[derive(Debug)]
pub(crate) struct ImageBuilder {
    pub(crate) tree: Tree,
    pub(crate) spool: Spool,
    pub(crate) budget: Budget,
    /// Later modification times are clamped to this.
    pub(crate) latest: Option<u64>,
    pub(crate) devices: Devices,
}

impl ImageBuilder {
    /// Clamps a modification time.
    pub(crate) fn time(&self, mtime: u64) -> u64 {
        self.latest.map_or(mtime, |latest| mtime.min(latest))
    }
}
