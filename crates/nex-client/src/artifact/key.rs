//! The name of an artifact in its bucket: `<namespace>/<workload>/<first half of its digest>`, so that no two files meet, whoever uploads
//! them, and what runs keeps its own when the next version comes.

use nex_protocol::deploy::Location;
use nex_protocol::digest::Digest;
use nex_protocol::id::{Namespace, WorkloadName};

/// End of the key of what is called TypeScript, by which nodes know it.
pub const TYPESCRIPT: &str = ".ts";
/// Characters of the digest in a key.
const DIGEST_CHARACTERS: usize = 32;

/// Whose an artifact is, read from its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The namespace it was uploaded for.
    pub namespace: Namespace,
    /// The workload.
    pub workload: WorkloadName,
    /// The beginning of its digest, hex.
    pub version: String,
}

/// Where a version of a workload's file belongs.
///
/// `None` where the bucket's name is none.
#[must_use]
pub fn location(bucket: &str, namespace: &Namespace, workload: &WorkloadName, digest: &Digest) -> Option<Location> {
    let digest = digest.to_string();
    Location::new(bucket, &format!("{namespace}/{workload}/{}", digest.get(..DIGEST_CHARACTERS)?))
}

impl Origin {
    /// Reads a key. Keys that somebody else chose have no origin.
    #[must_use]
    pub fn of(key: &str) -> Option<Self> {
        let mut parts = key.split('/');
        let (namespace, workload, version) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        let version = version.strip_suffix(TYPESCRIPT).unwrap_or(version);
        let is_digest =
            version.len() == DIGEST_CHARACTERS && version.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (is_digest && parts.next().is_none()).then(|| Self { namespace, workload, version: version.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_says_whose_it_is() {
        let (namespace, workload) = ("shop".parse().unwrap(), "greet".parse().unwrap());
        let found = location("NEXCLIFILES", &namespace, &workload, &Digest::of(b"a")).unwrap();
        let origin = Origin::of(&found.key).unwrap();
        assert_eq!((origin.namespace, origin.workload), (namespace, workload));
        assert!(Digest::of(b"a").to_string().starts_with(&origin.version));
        assert_eq!(Origin::of(&format!("{}{TYPESCRIPT}", found.key)).unwrap().version, origin.version);
        for other in ["greet", "shop/greet", "shop/greet/1", "shop//ca978112ca1bbdcafac231b39a23dc4d", ""] {
            assert_eq!(Origin::of(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_key_is_too_strange(key in "\\PC{0,80}") {
            drop(Origin::of(&key));
        }
    }
}
