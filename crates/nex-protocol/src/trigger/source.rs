//! Where the messages of a durable trigger come from: a stream, a bucket, or a clock.

use std::fmt;

use super::error::TriggerError;
use super::options::Options;
use super::schedule::Schedule;
use crate::subject::is_valid_pattern;

/// Where the messages of a trigger come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A stream.
    Stream {
        /// Its name.
        stream: String,
        /// Which of its messages; all if absent.
        filter: Option<String>,
    },
    /// What changes in a key-value bucket.
    Kv {
        /// Its name.
        bucket: String,
        /// Which keys; all if absent.
        key: Option<String>,
    },
    /// What changes in an object store.
    Object {
        /// Its name.
        bucket: String,
    },
    /// A clock.
    Schedule(Schedule),
}

impl Source {
    pub(super) fn parse(kind: &str, what: &str, options: &mut Options<'_>) -> Result<Self, TriggerError> {
        let pattern = |text: &str| is_valid_pattern(text).then(|| text.to_owned());
        let bucket = || if is_bucket(what) { Ok(what.to_owned()) } else { Err(TriggerError::what("bucket", what)) };
        match kind {
            "stream" if is_stream(what) => {
                let filter = options.read("filter", "a subject, in which * stands for one token and > for the rest", pattern)?;
                Ok(Self::Stream { stream: what.to_owned(), filter })
            }
            "stream" => Err(TriggerError::what("stream", what)),
            "kv" => {
                let key = options.read("key", "a key, in which * stands for one token and > for the rest", pattern)?;
                Ok(Self::Kv { bucket: bucket()?, key })
            }
            "object" => Ok(Self::Object { bucket: bucket()? }),
            other => Schedule::parse(other, what, options).unwrap_or_else(|| Err(TriggerError::kind(other))).map(Self::Schedule),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream { stream, filter: None } => write!(f, "stream:{stream}"),
            Self::Stream { stream, filter: Some(filter) } => write!(f, "stream:{stream}?filter={filter}"),
            Self::Kv { bucket, key: None } => write!(f, "kv:{bucket}"),
            Self::Kv { bucket, key: Some(key) } => write!(f, "kv:{bucket}?key={key}"),
            Self::Object { bucket } => write!(f, "object:{bucket}"),
            Self::Schedule(schedule) => schedule.fmt(f),
        }
    }
}

/// Whether a stream may have this name. It is a token of subjects, and part of a trigger's text.
#[must_use]
pub fn is_stream(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b".*>/\\?&".contains(&byte);
    (1..=255).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Whether a bucket may have this name.
#[must_use]
pub fn is_bucket(text: &str) -> bool {
    (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
