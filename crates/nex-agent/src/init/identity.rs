//! Applies a guest's identity: randomness, clock, host name, network, directories, and last the agent's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use data_encoding::BASE64;
use nex_process::{Child, guest, jail};
use nex_protocol::guest::{GuestIdentity, GuestLimits};

use super::{agent, drive, mounts, network};

/// Fewest bytes of entropy that make the random numbers of two clones differ.
const MIN_ENTROPY: usize = 32;
/// Longest host name that the kernel accepts.
const MAX_HOSTNAME: usize = 64;

/// Applies all of it: the entropy before anything draws random numbers, the agent last.
///
/// # Errors
/// What failed; the guest is then of no use.
pub(super) async fn apply(identity: &GuestIdentity, agent: &Child) -> anyhow::Result<()> {
    check(identity)?;
    let entropy = BASE64.decode(identity.entropy.as_bytes()).context("the randomness is not base64")?;
    if entropy.len() < MIN_ENTROPY {
        bail!("{} bytes of randomness are too few, it takes {MIN_ENTROPY}", entropy.len());
    }
    guest::add_entropy(&entropy).context("cannot add randomness")?;
    guest::set_clock(Duration::from_nanos(identity.time_unix_nanos)).context("cannot set the clock")?;
    nix::unistd::sethostname(&identity.hostname).context("cannot set the host name")?;
    if let Some(network) = &identity.network {
        network::apply(network).context("cannot set the network up")?;
    }
    network::write_names(Path::new("/etc"), &identity.hostname, identity.network.as_ref())?;
    mounts::scratch(&identity.limits)?;
    if let Some(slot) = identity.root {
        drive::attach_root(slot).await.with_context(|| format!("cannot make drive {slot} the root of the agent"))?;
    }
    agent::send_identity(agent, identity).await
}

/// Validates an identity before anything is changed.
fn check(identity: &GuestIdentity) -> anyhow::Result<()> {
    let GuestLimits { uid, tmp_bytes, .. } = identity.limits;
    if uid == 0 || uid == u32::MAX {
        bail!("the agent's uid may not be {uid}");
    }
    if tmp_bytes == 0 {
        bail!("directories of 0 bytes would be of unlimited size");
    }
    if identity.identity.len() > jail::MAX_LINE || identity.identity.contains('\n') {
        bail!("the identity is not one line of at most {} bytes", jail::MAX_LINE);
    }
    let name = &identity.hostname;
    let plain = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '.';
    if name.is_empty() || name.len() > MAX_HOSTNAME || !name.chars().all(plain) {
        bail!("'{}' is no host name", name.escape_debug());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> GuestIdentity {
        GuestIdentity {
            identity: "{}".to_owned(),
            hostname: "vm-1".to_owned(),
            network: None,
            time_unix_nanos: 1,
            entropy: BASE64.encode(&[7; MIN_ENTROPY - 1]),
            limits: GuestLimits { uid: 1000, processes: 1, open_files: 1, file_bytes: 1, tmp_bytes: 1 },
            root: None,
        }
    }

    #[test]
    fn an_identity_that_would_give_root_or_write_lines_is_refused() {
        check(&identity()).unwrap();
        let with = |change: fn(&mut GuestIdentity)| {
            let mut identity = identity();
            change(&mut identity);
            check(&identity)
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
        assert!(apply(&identity(), &agent).await.unwrap_err().to_string().contains("too few"));
    }
}
