//! The wire, byte for byte: `golden/0.2.7` holds what the client and the node of Nex 0.2.7 sent when they were recorded
//! (with keys made for that and thrown away), `golden` what we send. `UPDATE_GOLDEN=1 cargo test -p nex-protocol` rewrites ours.

#[cfg(test)]
mod golden {
    mod ours;
    mod recorded;
}
