//! The programs of `target/dist` from outside: a theme is a file, and each test has a world of its own.
//!
//! | file | what a user does there |
//! |---|---|
//! | `up`, `crash`, `user` | `nex up`: started, stopped, killed, without privileges |
//! | `node_up`, `preflight`, `rootfs` | a node with a configuration file, what it needs, and root images of microVMs |
//! | `images`, `image_store` | OCI images run from a layout and from archives; kept in NATS |
//! | `isolation` | functions that share agents, and who does not |
//! | `devrun`, `nodes`, `run_stop` | workloads deployed, replaced, stopped; on one node and on two |
//! | `watch` | `devrun --watch`: each save is live |
//! | `new` | templates: written, built, deployed, called |
//! | `examples` | each of the examples as it is |
//! | `artifacts` | what was uploaded: listed, removed, given room |
//! | `secrets` | values that workloads use by name |
//! | `apply`, `export` | a file that says what runs |
//! | `replace`, `rollback` | the same deployed again, deploys that fail, and the version before brought back |
//! | `jobs`, `lifecycle` | jobs, and the end of a node: left, drained, started afresh |
//! | `host_trouble`, `clock` | a full disk, no descriptors, no processes; a clock that jumps |
//! | `upgrade` | the program of a node replaced while it runs |
//! | `leaf` | a leaf node with a JetStream domain of its own |
//! | `keeping` | services that are started again, ended and checked as their policies say |
//! | `microvm`, `microvm_*` | the same in virtual machines, and what those are for |
//! | `call`, `tails` | functions called; logs and events watched |
//! | `connect`, `micro` | ways to reach NATS, and what other NATS tools see |
//! | `nats_cli`, `service_nats` | the `nats` command beside `nex`, and NATS as services find it |
//! | `who` | issuers, operators, `ps` of all namespaces, `whoami` |
//! | `permissions` | with the least permissions, and without each of them |
//! | `http`, `http_pieces` | functions called by HTTP, and answers that come piece by piece |
//! | `triggers`, `replay` | streams, schedules, dead letters, and messages called with once more |
//! | `terminal`, `mistakes` | tables on terminals, and what is said of common mistakes |
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
mod artifacts;
mod call;
mod caller;
mod clock;
mod components;
mod connect;
mod crash;
mod devrun;
mod ended;
mod examples;
mod export;
mod guests;
mod history;
mod host_trouble;
mod http;
mod http_pieces;
mod image_store;
mod images;
mod isolation;
mod jobs;
mod keeping;
mod leaf;
#[path = "../../../xtask/src/leftovers.rs"]
mod leftovers;
mod lifecycle;
mod micro;
mod microvm;
mod microvm_cycles;
mod microvm_start;
mod mistakes;
mod nats_cli;
mod new;
mod node_up;
mod nodes;
mod permissions;
mod preflight;
mod readme;
mod replace;
mod replay;
mod rollback;
mod rootfs;
mod run_stop;
mod running;
mod secrets;
mod service_nats;
mod surface;
mod tails;
mod terminal;
mod top;
mod triggers;
mod up;
mod upgrade;
mod user;
mod watch;
mod who;
mod world;
