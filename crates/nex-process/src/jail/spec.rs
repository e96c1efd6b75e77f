//! The input of a jail: its specification as one JSON line, then the identity as a line that the jail passes on.

use std::io::{self, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::{JailError, MAX_LINE};
use crate::confinement::{CgroupLayer, Layer, Mode, Part};

/// How to confine a process; see [`super::enter`].
///
/// Unknown fields are refused: a rule that an older agent does not know would silently not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JailSpec {
    /// How to separate it from the host, as found by trying.
    pub mode: Mode,
    /// Why the mode is not a better one; stands in the report.
    pub mode_reason: Option<String>,
    /// Uid and gid that only this agent has. Needed in [`Mode::Privileged`], ignored in a user namespace.
    pub uid: Option<u32>,
    /// Host directory that becomes `/artifact`, read-only.
    pub artifact_dir: PathBuf,
    /// Host directory for scratch files in [`Mode::Plain`], where there is no `/work` in memory.
    pub work_dir: Option<PathBuf>,
    /// Size of each of `/tmp`, `/work` and `/dev/shm`, which are memory.
    pub tmp_bytes: u64,
    /// Limits of each process.
    pub limits: ProcessLimits,
    /// The group that the node has put this process into.
    pub cgroup: CgroupLayer,
    /// Whether the node has started this process in a network namespace of its own.
    pub network: Layer,
    /// Whether it gets one with nothing in it; not in [`Mode::Plain`].
    pub no_network: bool,
    /// What `/etc/resolv.conf` says, where it is not the host's. Only with an own root.
    pub resolv_conf: Option<String>,
    /// What becomes the root, beneath memory that takes what is written: the file of an EROFS image, or a directory. Not in [`Mode::Plain`].
    pub image: Option<PathBuf>,
    /// Layers that must not be missing.
    pub require: Vec<Part>,
}

/// Resource limits that the kernel keeps for each process (`processes`: for each user). Cut to the hard limit where that is lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessLimits {
    /// Open files.
    pub open_files: u64,
    /// Processes and threads of the uid, in its user namespace: processes of others count if neither is its own.
    pub processes: Option<u64>,
    /// Size of a file in bytes.
    pub file_bytes: u64,
    /// Writable private memory in bytes: what holds where no cgroup limits memory. Reserved address space does not count.
    pub data_bytes: Option<u64>,
}

/// Reads the two lines; nothing beyond the second line break is taken into account.
pub(super) fn read(stdin: &mut impl Read) -> Result<(JailSpec, Vec<u8>), JailError> {
    let mut bytes = Vec::with_capacity(4096);
    let mut chunk = [0_u8; 4096];
    loop {
        let mut lines = bytes.splitn(3, |byte: &u8| *byte == b'\n');
        if let (Some(spec), Some(identity), Some(_rest)) = (lines.next(), lines.next(), lines.next()) {
            return parse(spec, identity);
        }
        if bytes.len() > 2 * MAX_LINE {
            return Err(JailError::TooLong);
        }
        match stdin.read(&mut chunk) {
            Ok(0) => return Err(JailError::Unread(io::ErrorKind::UnexpectedEof.into())),
            Ok(length) => bytes.extend(chunk.iter().take(length)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(JailError::Unread(error)),
        }
    }
}

fn parse(spec: &[u8], identity: &[u8]) -> Result<(JailSpec, Vec<u8>), JailError> {
    if spec.len() > MAX_LINE || identity.len() > MAX_LINE {
        return Err(JailError::TooLong);
    }
    let spec: JailSpec = serde_json::from_slice(spec).map_err(JailError::Spec)?;
    spec.check()?;
    Ok((spec, identity.to_vec()))
}

impl JailSpec {
    /// Refuses a contradictory specification.
    pub(super) fn check(&self) -> Result<(), JailError> {
        let dirs = [Some(&self.artifact_dir), self.work_dir.as_ref(), self.image.as_ref()];
        if dirs.into_iter().flatten().any(|dir| !dir.is_absolute()) {
            return Err(JailError::Contradiction("directories must be absolute"));
        }
        if self.mode == Mode::Privileged && self.uid.is_none_or(|uid| uid == 0 || uid == u32::MAX) {
            return Err(JailError::Contradiction("a privileged jail needs a uid of its own, which is not root's"));
        }
        if self.mode == Mode::Plain && self.work_dir.is_none() {
            return Err(JailError::Contradiction("a plain jail needs a work directory"));
        }
        if self.mode == Mode::Plain && self.image.is_some() {
            return Err(JailError::Contradiction("a plain jail has no root of its own, which an image needs"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> JailSpec {
        JailSpec {
            mode: Mode::UserNamespace,
            mode_reason: None,
            uid: None,
            artifact_dir: "/a".into(),
            work_dir: None,
            tmp_bytes: 1 << 20,
            limits: ProcessLimits { open_files: 64, processes: Some(16), file_bytes: 1 << 20, data_bytes: None },
            cgroup: CgroupLayer::default(),
            network: Layer::Held,
            no_network: false,
            resolv_conf: None,
            image: None,
            require: vec![Part::Root],
        }
    }

    fn line(spec: &JailSpec) -> Vec<u8> {
        let mut line = serde_json::to_vec(spec).unwrap();
        line.push(b'\n');
        line
    }

    #[test]
    fn two_lines_are_read_and_nothing_more() {
        let input = [line(&spec()), b"{\"seed\":1}\nnot ours".to_vec()].concat();
        let (read, identity) = read(&mut input.as_slice()).unwrap();
        assert_eq!(read, spec());
        assert_eq!(identity, b"{\"seed\":1}");
    }

    #[test]
    fn what_is_cut_short_too_long_or_unknown_is_refused() {
        assert!(matches!(read(&mut line(&spec()).as_slice()), Err(JailError::Unread(_))));
        assert!(matches!(read(&mut io::repeat(b'x')), Err(JailError::TooLong)));
        let long = [line(&spec()), vec![b'x'; MAX_LINE + 1], b"\n".to_vec()].concat();
        assert!(matches!(read(&mut long.as_slice()), Err(JailError::TooLong)));
        let unknown = String::from_utf8(line(&spec())).unwrap().replacen('{', "{\"rule\":1,", 1) + "\n";
        assert!(matches!(read(&mut unknown.as_bytes()), Err(JailError::Spec(_))));
    }

    #[test]
    fn a_privileged_jail_never_stays_root() {
        for uid in [None, Some(0), Some(u32::MAX)] {
            assert!(JailSpec { mode: Mode::Privileged, uid, ..spec() }.check().is_err());
        }
        assert!(JailSpec { mode: Mode::Privileged, uid: Some(712_000), ..spec() }.check().is_ok());
        assert!(JailSpec { mode: Mode::Plain, ..spec() }.check().is_err());
        assert!(JailSpec { image: Some("relative".into()), ..spec() }.check().is_err());
        assert!(JailSpec { artifact_dir: "relative".into(), ..spec() }.check().is_err());
    }
}
