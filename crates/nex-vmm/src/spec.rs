//! The specification of a machine, the same for every monitor.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use nex_process::LineSink;
use serde::{Deserialize, Serialize};

use crate::error::VmmError;

/// How many drives a machine can have beside its root: QEMU's `microvm` has eight places for devices in all.
pub const MAX_DRIVES: usize = 3;

/// The hardware address of a network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// A locally administered unicast address (`02:…`) that ends with these bytes.
    #[must_use]
    pub const fn local(bytes: [u8; 5]) -> Self {
        let [a, b, c, d, e] = bytes;
        Self([0x02, a, b, c, d, e])
    }

    /// Its six bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = VmmError;

    fn from_str(text: &str) -> Result<Self, VmmError> {
        let invalid = || VmmError::Invalid(format!("{text:?} is no hardware address like 02:00:00:00:00:01"));
        let mut parts = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
            *byte = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(invalid)?;
        }
        if parts.next().is_some() { Err(invalid()) } else { Self::try_from(bytes) }
    }
}

impl TryFrom<[u8; 6]> for Mac {
    type Error = VmmError;

    fn try_from(bytes: [u8; 6]) -> Result<Self, VmmError> {
        let mac = Self(bytes);
        // The lowest bit of the first byte marks a multicast address, which an interface cannot have.
        if bytes[0] & 1 == 1 { Err(VmmError::Invalid(format!("{mac} is no address of one interface"))) } else { Ok(mac) }
    }
}

impl TryFrom<String> for Mac {
    type Error = VmmError;

    fn try_from(text: String) -> Result<Self, VmmError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// A budget that refills at a steady rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBucket {
    /// How much it holds: bytes, or operations.
    pub size: u64,
    /// Milliseconds in which it fills from empty.
    pub refill_time_ms: u64,
    /// An extra budget at the start that never fills again. Firecracker only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time_burst: Option<u64>,
}

/// The rate limits of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiter {
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucket>,
    /// Operations: packets, or requests to a drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucket>,
}

/// The machine's network interface.
#[derive(Debug, Clone)]
pub struct Nic {
    /// Name of the tap, which exists already (in the machine's network namespace if it has one).
    pub tap: String,
    /// The guest's hardware address. A restored guest keeps the one of the snapshot until it sets its own.
    pub mac: Mac,
    /// Limits on what the guest receives. Firecracker only: under QEMU the network applies limits.
    pub rx: Option<RateLimiter>,
    /// Limits on what the guest sends. Firecracker only.
    pub tx: Option<RateLimiter>,
}

/// A machine to start.
#[derive(Clone)]
pub struct MachineSpec {
    /// Its name for the monitor: letters, digits and `-`, at most 64 of them.
    pub id: String,
    /// An empty directory of this machine alone. The caller makes it, and removes it when the machine is gone.
    pub dir: PathBuf,
    /// Virtual processors.
    pub vcpus: u8,
    /// Its memory, MiB.
    pub memory_mib: u32,
    /// The kernel, an ELF file.
    pub kernel: PathBuf,
    /// Kernel arguments, after those that the monitor needs (console, root device, timers).
    pub boot_args: String,
    /// The image of the root file system, `/dev/vda`, read-only.
    pub root: PathBuf,
    /// Further images, `/dev/vdb` and so on, read-only; each may be replaced later. At most [`MAX_DRIVES`].
    pub drives: Vec<PathBuf>,
    /// The rate limits of the drives.
    pub drive_limiter: Option<RateLimiter>,
    /// Its network interface.
    pub nic: Option<Nic>,
    /// The network namespace in which the tap is and the monitor runs, by path.
    pub netns: Option<PathBuf>,
    /// The user and group that the monitor runs as; the images must be readable by it. Needs root.
    pub run_as: Option<u32>,
    /// Whether it gets a balloon.
    pub balloon: bool,
    /// Whether it gets a metadata service (169.254.169.254 on its interface). Firecracker only.
    pub metadata: bool,
    /// Takes the guest's console and what the monitor itself writes, line by line.
    pub console: LineSink,
}

impl MachineSpec {
    /// Refuses what no monitor could start, before anything is created.
    pub(crate) fn check(&self) -> Result<(), VmmError> {
        let invalid = |why: String| Err(VmmError::Invalid(why));
        let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if self.id.is_empty() || self.id.len() > 64 || !self.id.bytes().all(named) {
            return invalid(format!("its id {:?} is not 1 to 64 letters, digits and '-'", self.id));
        }
        if !(1..=32).contains(&self.vcpus) {
            return invalid(format!("{} vCPUs are not 1 to 32", self.vcpus));
        }
        if self.memory_mib < 32 {
            return invalid(format!("{} MiB of memory are less than 32", self.memory_mib));
        }
        if self.drives.len() > MAX_DRIVES {
            return invalid(format!("{} drives beside the root are more than {MAX_DRIVES}", self.drives.len()));
        }
        if self.boot_args.len() > 1024 || !self.boot_args.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return invalid("its kernel arguments are not at most 1024 printable characters".to_owned());
        }
        Ok(())
    }
}

impl fmt::Debug for MachineSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineSpec")
            .field("id", &self.id)
            .field("dir", &self.dir)
            .field("vcpus", &self.vcpus)
            .field("memory_mib", &self.memory_mib)
            .field("nic", &self.nic)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_survives_its_text() {
        let mac = Mac::local([0, 1, 0xab, 0xcd, 0xff]);
        assert_eq!(mac.to_string(), "02:00:01:ab:cd:ff");
        assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
        for bad in ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "01:00:00:00:00:00", "02:0:00:00:00:00", "02:+1:00:00:00:00"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
