//! The programs of `target/dist` from outside: a theme is a file, and each test has a world of its own.
//!
//! | file | what a user does there |
//! |---|---|
//! | `up`, `crash`, `user` | `nex up`: started, stopped, killed, without privileges |
//! | `node_up`, `preflight`, `rootfs` | a node with a configuration file, what it needs, and root images of microVMs |
//! | `devrun`, `nodes`, `run_stop` | workloads deployed, replaced, stopped; on one node and on two |
//! | `replace` | the same deployed again, and deploys that fail |
//! | `microvm`, `microvm_*` | the same in virtual machines, and what those are for |
//! | `call`, `tails` | functions called; logs and events watched |
//! | `connect`, `micro` | ways to reach NATS, and what other NATS tools see |
//! | `permissions` | with the least permissions, and without each of them |
//! | `surface`, `readme` | help, completion, and the commands that the documents show |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::disallowed_methods,
    reason = "tests: what fails here fails the test, and the programs under test are started here"
)]

mod apply;
mod call;
mod connect;
mod crash;
mod devrun;
mod ended;
mod guests;
#[path = "../../../xtask/src/leftovers.rs"]
mod leftovers;
mod micro;
mod microvm;
mod microvm_cycles;
mod microvm_start;
mod node_up;
mod nodes;
mod permissions;
mod preflight;
mod readme;
mod replace;
mod rootfs;
mod run_stop;
mod running;
mod surface;
mod tails;
mod terminal;
mod up;
mod user;
mod world;
