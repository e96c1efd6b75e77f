//! Default timeouts of agents and deploys, derived from the speed of this host.

use std::time::Duration;

use super::candidate::Accel;

/// Upper bound, however slow the host is.
const MAX: Duration = Duration::from_secs(120);
/// Lower bound on emulated processors, which other emulated machines slow down.
const MIN_EMULATED: Duration = Duration::from_secs(60);
/// Timeouts in multiples of the first machine's boot time, measured on an idle host.
const HANDSHAKE_BOOTS: u32 = 10;
const DEPLOY_BOOTS: u32 = 20;

/// Timeouts that depend on the kind of sandbox. The default is that of jailed processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the creation of an agent to its handshake.
    pub handshake: Duration,
    /// A deploy.
    pub deploy: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(5), deploy: Duration::from_secs(10) }
    }
}

impl Timeouts {
    /// The timeouts of machines with this boot time.
    pub(super) fn of_machines(accel: Accel, boot: Duration) -> Self {
        let min = match accel {
            Accel::Kvm => Self::default(),
            Accel::Emulation => Self { handshake: MIN_EMULATED, deploy: MIN_EMULATED },
        };
        Self {
            handshake: boot.saturating_mul(HANDSHAKE_BOOTS).clamp(min.handshake, MAX),
            deploy: boot.saturating_mul(DEPLOY_BOOTS).clamp(min.deploy, MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_host_gets_more_time_up_to_a_bound() {
        let seconds = |count| Duration::from_secs(count);
        let fast = Timeouts::of_machines(Accel::Kvm, Duration::from_millis(150));
        assert_eq!(fast, Timeouts::default());
        let slow = Timeouts::of_machines(Accel::Kvm, seconds(3));
        assert_eq!((slow.handshake, slow.deploy), (seconds(30), seconds(60)));
        assert_eq!(Timeouts::of_machines(Accel::Emulation, seconds(2)).handshake, seconds(60));
        assert_eq!(Timeouts::of_machines(Accel::Kvm, Duration::MAX).deploy, seconds(120));
    }
}
