//! Becoming who the node says: name, clock, randomness, network, directories, and then so does the agent.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use data_encoding::BASE64;
use nex_process::{Child, guest, jail};
use nex_protocol::guest::{GuestLimits, Welcome};

use super::{agent, mounts, network};

/// Least randomness that makes two clones of a snapshot strangers.
const LEAST_ENTROPY: usize = 32;
/// Longest name that the kernel takes.
const LONGEST_NAME: usize = 64;

/// Applies all of it, in this order: what is random is so before anything draws from it, and the agent is told last.
///
/// # Errors
/// What failed; the guest is then of no use.
pub(super) async fn settle(welcome: &Welcome, agent: &Child) -> anyhow::Result<()> {
    check(welcome)?;
    let entropy = BASE64.decode(welcome.entropy.as_bytes()).context("the randomness is not base64")?;
    if entropy.len() < LEAST_ENTROPY {
        bail!("{} bytes of randomness are too few, it takes {LEAST_ENTROPY}", entropy.len());
    }
    guest::add_entropy(&entropy).context("cannot add randomness")?;
    guest::set_clock(Duration::from_nanos(welcome.time_unix_nanos)).context("cannot set the clock")?;
    nix::unistd::sethostname(&welcome.hostname).context("cannot set the host name")?;
    if let Some(network) = &welcome.network {
        network::apply(network).context("cannot set the network up")?;
    }
    network::write_names(Path::new("/etc"), &welcome.hostname, welcome.network.as_ref())?;
    mounts::scratch(&welcome.limits)?;
    agent::tell(agent, welcome).await
}

/// Refuses what would not make a guest, before anything is changed.
fn check(welcome: &Welcome) -> anyhow::Result<()> {
    let GuestLimits { uid, tmp_bytes, .. } = welcome.limits;
    if uid == 0 || uid == u32::MAX {
        bail!("the agent's uid may not be {uid}");
    }
    if tmp_bytes == 0 {
        bail!("directories of 0 bytes would be of unlimited size");
    }
    if welcome.identity.len() > jail::MAX_LINE || welcome.identity.contains('\n') {
        bail!("the identity is not one line of at most {} bytes", jail::MAX_LINE);
    }
    let name = &welcome.hostname;
    let plain = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '.';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(plain) {
        bail!("'{}' is no host name", name.escape_debug());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome() -> Welcome {
        Welcome {
            identity: "{}".to_owned(),
            hostname: "vm-1".to_owned(),
            network: None,
            time_unix_nanos: 1,
            entropy: BASE64.encode(&[7; LEAST_ENTROPY - 1]),
            limits: GuestLimits { uid: 1000, processes: 1, open_files: 1, file_bytes: 1, tmp_bytes: 1 },
        }
    }

    #[test]
    fn an_identity_that_would_give_root_or_write_lines_is_refused() {
        check(&welcome()).unwrap();
        let with = |change: fn(&mut Welcome)| {
            let mut welcome = welcome();
            change(&mut welcome);
            check(&welcome)
        };
        assert!(with(|it| it.limits.uid = 0).is_err());
        assert!(with(|it| it.limits.uid = u32::MAX).is_err());
        assert!(with(|it| it.limits.tmp_bytes = 0).is_err());
        assert!(with(|it| it.identity = "{}\n{}".to_owned()).is_err());
        assert!(with(|it| it.hostname = "a\n127.0.0.1 b".to_owned()).is_err());
        assert!(with(|it| it.hostname = String::new()).is_err());
    }

    #[tokio::test]
    async fn a_clone_that_would_share_its_randomness_is_not_started() {
        let agent = nex_process::ChildSpec::new("/bin/true").spawn().unwrap();
        assert!(settle(&welcome(), &agent).await.unwrap_err().to_string().contains("too few"));
    }
}
