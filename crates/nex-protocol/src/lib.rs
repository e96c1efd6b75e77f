//! The wire: every subject, body, header, error and event that crosses a process boundary. No I/O, no clock.
//!
//! | room | what is in it |
//! |---|---|
//! | [`id`], [`digest`] | names and ids, parsed once |
//! | [`subject`], [`reply`] | every subject, built and parsed; where an answer may go |
//! | [`envelope`] | the frame of control replies, and the kinds of failure |
//! | [`control`], [`deploy`] | bodies of the control API of Nex 0.2.7 |
//! | [`trigger`] | what starts a function, and with which guarantees |
//! | [`replay`] | host calls as they are recorded, and a call that is made again with them |
//! | [`claims`], [`seal`], [`secret`] | who may, and for whose eyes |
//! | [`event`], [`log`] | what a node tells the world |
//! | [`agent`], [`host`] | what node and agents say on the internal bus |
//! | [`image`], [`image_store`] | how the workload of an OCI image is run; images kept in NATS |

pub mod agent;
pub mod claims;
pub mod control;
pub mod deploy;
pub mod digest;
pub mod envelope;
pub mod event;
pub mod guest;
pub mod host;
pub mod id;
pub mod image;
pub mod image_store;
pub mod log;
pub mod replay;
pub mod reply;
pub mod seal;
pub mod secret;
pub mod subject;
pub mod trigger;
