//! Bodies of the questions about nodes: AUCTION, PING, WPING, INFO, HISTORY, LAMEDUCK. (Deploy and stop: [`crate::deploy`].)
//!
//! Fields that 0.2.7 does not know are optional and ignored by its clients.

mod cause;
mod history;
mod node;
mod span;
mod triggers;
mod workloads;

pub use self::cause::ExitCause;
pub use self::history::{HistoryEvent, HistoryLine, HistoryRecord, HistoryRequest, HistoryResponse, HistorySummary};
pub use self::node::{
    AuctionRequest, HostUse, InfoResponse, LameDuckRequest, LameDuckResponse, Machine, MachineWorkload, Memory, NodeSummary,
    QuotaSummary, Tags,
};
pub use self::span::{runtime, uptime};
pub use self::triggers::TriggerSummary;
pub use self::workloads::{
    EndedWorkload, LastExit, ResourceSummary, SealedSettings, TailLine, WorkloadPingRequest, WorkloadPingResponse,
    WorkloadSummary,
};
