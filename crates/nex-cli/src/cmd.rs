//! The commands, one file each.

pub(crate) mod apply;
pub(crate) mod call;
pub(crate) mod completion;
pub(crate) mod deploy;
pub(crate) mod devrun;
pub(crate) mod events;
pub(crate) mod lameduck;
pub(crate) mod logs;
pub(crate) mod node;
pub(crate) mod node_info;
pub(crate) mod node_up;
pub(crate) mod preflight;
pub(crate) mod ps;
pub(crate) mod rootfs;
pub(crate) mod run;
pub(crate) mod stop;
pub(crate) mod up;
pub(crate) mod upload;
