//! What attackers try, against the programs of `target/dist` and a real nats-server: each test is an attack, and passes where it meets
//! an error.
//!
//! | file | who attacks |
//! |---|---|
//! | `anybody` | whoever reaches the server of `nex up`, without credentials |
//! | `stranger` | whoever may publish and subscribe on the user's NATS, and nothing else |
//! | `deployer` | whoever may deploy |
//! | `engine` | whoever takes over an engine, and the agent with it |
//! | `impostor` | whoever listens where the internal bus did |
//! | `tokens` | whoever may deploy and has read what others sent |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::disallowed_methods,
    dead_code,
    reason = "tests: what fails here fails the test, the programs under test are started here, and the world has more than attackers use"
)]

mod anybody;
mod deployer;
#[path = "../e2e/ended.rs"]
mod ended;
mod engine;
mod impostor;
#[path = "../e2e/running.rs"]
mod running;
mod stranger;
mod tokens;
mod victim;
#[path = "../e2e/world.rs"]
mod world;
