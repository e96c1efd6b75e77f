//! The way onto the user's NATS: settings, contexts of the NATS CLI, connections that come back.
//!
//! | room | what is in it |
//! |---|---|
//! | [`settings`] | how a connection is to be made; secrets that do not print |
//! | [`context`] | settings from a NATS CLI context |
//! | [`connect`] | settings into a client |
//! | `greeting` | what listens where no connection came about |
//! | [`local_context`] | the context of the server that `nex up` starts |
//! | [`denials`] | what the server does not permit |
//! | [`drain`] | subscriptions that end in order |
//! | [`invocation`] | calls of functions as messages of the internal bus |
//! | [`service_error`] | replies that say no |
//! | [`streaming`] | replies that come piece by piece |

mod authenticate;
pub mod connect;
mod connect_error;
pub mod context;
pub mod denials;
pub mod drain;
mod greeting;
pub mod invocation;
pub mod local_context;
pub mod own_headers;
pub mod service_error;
pub mod settings;
pub mod streaming;
