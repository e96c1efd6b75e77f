//! The layers that confine a jailed process, and why a layer is missing.
//!
//! A jail writes this about itself; preflight shows it, the node turns it into tags and compares it with what is required.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a jail separates itself from the host; which one works is found by trying ([`crate::jail::detect`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Namespaces made with the capabilities of root, and a uid of its own.
    Privileged,
    /// Namespaces inside a user namespace that holds nothing but the starter's own id.
    UserNamespace,
    /// No namespaces: only what a process can do to itself (Landlock, seccomp, limits).
    Plain,
}

/// A layer of confinement by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Own mount, pid, IPC, host name and cgroup namespaces.
    Namespaces,
    /// A root directory with nothing of the host that is not needed.
    Root,
    /// An identity that no other process of the host has.
    User,
    /// Limits on memory and processes that hold for all of its processes together.
    Cgroup,
    /// Forbidden system calls.
    Seccomp,
    /// File and signal rules that hold even for the owner of a file.
    Landlock,
    /// A network namespace in which only what policy allows can be reached.
    Network,
}

impl Part {
    /// Every layer.
    pub const ALL: [Self; 7] =
        [Self::Namespaces, Self::Root, Self::User, Self::Cgroup, Self::Seccomp, Self::Landlock, Self::Network];

    /// Its name in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Root => "root",
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::Network => "network",
        }
    }
}

/// Not the name of a layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no layer of confinement; next: use namespaces, root, user, cgroup, seccomp, landlock or network")]
pub struct UnknownPart(String);

impl FromStr for Part {
    type Err = UnknownPart;

    fn from_str(name: &str) -> Result<Self, UnknownPart> {
        Self::ALL.into_iter().find(|part| part.name() == name).ok_or_else(|| UnknownPart(name.chars().take(40).collect()))
    }
}

/// A layer that is there or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// In force.
    Held,
    /// Not in force.
    Missing {
        /// Why.
        reason: String,
    },
}

/// The identity of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserLayer {
    /// A uid that only this agent has.
    OwnUid {
        /// That uid.
        uid: u32,
    },
    /// The starter's uid, alone in its own user namespace.
    UserNamespace,
    /// The starter's uid.
    Shared {
        /// Why.
        reason: String,
    },
}

/// Which generation of cgroups limits the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupVersion {
    /// None does.
    #[default]
    None,
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// The cgroup's part, known to the node: the jail is put into its group from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CgroupLayer {
    /// Generation of the controllers.
    pub version: CgroupVersion,
    /// Controllers that really limit, of `memory`, `pids` and `cpu`.
    pub controllers: Vec<String>,
    /// Why memory or processes are not limited, where they are not.
    pub reason: Option<String>,
}

/// Landlock's ABI that keeps abstract Unix sockets and signals of others out of reach.
const SCOPES_SOCKETS: u32 = 6;

/// Landlock's part.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LandlockLayer {
    /// The kernel's ABI in use, 0 for none. Signals and abstract sockets are covered from 6 on.
    pub abi: u32,
    /// Why there is none.
    pub reason: Option<String>,
}

/// Everything that confines one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// How it was made.
    pub mode: Mode,
    /// Mount, pid, IPC, host name and cgroup namespaces, all or none.
    pub namespaces: Layer,
    /// The root directory.
    pub root: Layer,
    /// The identity.
    pub user: UserLayer,
    /// The limits from outside.
    pub cgroup: CgroupLayer,
    /// The system calls.
    pub seccomp: Layer,
    /// The file rules.
    pub landlock: LandlockLayer,
    /// The network, known to the node: the jail is started inside its namespace.
    pub network: Layer,
}

impl Confinement {
    /// Every layer that is missing, with the reason.
    #[must_use]
    pub fn missing(&self) -> Vec<(Part, &str)> {
        let mut missing = Vec::new();
        let layers = [
            (Part::Namespaces, &self.namespaces),
            (Part::Root, &self.root),
            (Part::Seccomp, &self.seccomp),
            (Part::Network, &self.network),
        ];
        for (part, layer) in layers {
            if let Layer::Missing { reason } = layer {
                missing.push((part, reason.as_str()));
            }
        }
        if let UserLayer::Shared { reason } = &self.user {
            missing.push((Part::User, reason));
        }
        if let Some(reason) = &self.cgroup.reason {
            missing.push((Part::Cgroup, reason));
        }
        if let Some(reason) = &self.landlock.reason {
            missing.push((Part::Landlock, reason));
        } else if self.network != Layer::Held && self.landlock.abi < SCOPES_SOCKETS {
            // Elsewhere the namespace keeps them out of reach.
            missing.push((Part::Landlock, "abstract Unix sockets of the host can be reached (that needs Linux 6.12)"));
        }
        missing
    }

    /// The first required layer that is missing, with the reason.
    #[must_use]
    pub fn lacks(&self, required: &[Part]) -> Option<(Part, &str)> {
        self.missing().into_iter().find(|(part, _)| required.contains(part))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "namespaces",
            Self::Root => "own root",
            Self::User => "own user",
            Self::Cgroup => "cgroup limits",
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::Network => "own network",
        })
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.namespaces {
            Layer::Held => "namespaces",
            Layer::Missing { .. } => "no namespaces",
        })?;
        match &self.user {
            UserLayer::OwnUid { .. } => f.write_str(", own uid")?,
            UserLayer::UserNamespace => f.write_str(", user namespace")?,
            UserLayer::Shared { .. } => f.write_str(", shared uid")?,
        }
        match self.cgroup.version {
            CgroupVersion::None => f.write_str(", no cgroup")?,
            CgroupVersion::V1 => write!(f, ", cgroup v1 ({})", self.cgroup.controllers.join(" "))?,
            CgroupVersion::V2 => write!(f, ", cgroup v2 ({})", self.cgroup.controllers.join(" "))?,
        }
        f.write_str(if self.seccomp == Layer::Held { ", seccomp" } else { ", no seccomp" })?;
        match self.landlock.abi {
            0 => f.write_str(", no landlock")?,
            abi => write!(f, ", landlock {abi}")?,
        }
        f.write_str(if self.network == Layer::Held { ", own network" } else { ", the host's network" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_layer_is_named_with_its_reason_when_it_is_required() {
        let confinement = Confinement {
            mode: Mode::Plain,
            namespaces: Layer::Missing { reason: "no".to_owned() },
            root: Layer::Missing { reason: "no".to_owned() },
            user: UserLayer::OwnUid { uid: 7 },
            cgroup: CgroupLayer::default(),
            seccomp: Layer::Held,
            landlock: LandlockLayer { abi: 0, reason: Some("old kernel".to_owned()) },
            network: Layer::Held,
        };
        assert_eq!(confinement.lacks(&[Part::User, Part::Landlock]), Some((Part::Landlock, "old kernel")));
        assert_eq!(confinement.lacks(&[Part::Seccomp]), None);
        assert_eq!(confinement.to_string(), "no namespaces, own uid, no cgroup, seccomp, no landlock, own network");
        let text = serde_json::to_string(&confinement).unwrap();
        assert_eq!(serde_json::from_str::<Confinement>(&text).unwrap(), confinement);
    }

    #[test]
    fn an_old_landlock_is_enough_only_in_a_network_of_its_own() {
        let held = |network, abi| Confinement {
            mode: Mode::Privileged,
            namespaces: Layer::Held,
            root: Layer::Held,
            user: UserLayer::OwnUid { uid: 7 },
            cgroup: CgroupLayer::default(),
            seccomp: Layer::Held,
            landlock: LandlockLayer { abi, reason: None },
            network,
        };
        let shared = || Layer::Missing { reason: "a test".to_owned() };
        let missing = |network, abi| held(network, abi).missing().into_iter().map(|(part, _)| part).collect::<Vec<_>>();
        assert_eq!(missing(Layer::Held, 2), []);
        assert_eq!(missing(shared(), 2), [Part::Network, Part::Landlock]);
        assert_eq!(missing(shared(), 6), [Part::Network]);
    }

    #[test]
    fn a_layer_is_named_as_it_is_written() {
        for part in Part::ALL {
            assert_eq!(part.name().parse(), Ok(part));
            assert_eq!(serde_json::to_string(&part).unwrap(), format!("\"{}\"", part.name()));
        }
        assert!("own user".parse::<Part>().is_err());
    }
}
