//! Which messages of a trigger are handled one after another.

use super::error::TriggerError;
use super::options::Options;
use super::source::Source;

/// Longest name of a header.
const MAX_HEADER: usize = 128;

/// Which messages are handled one after another, in the order of their stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Order {
    /// None: each as soon as there is a slot.
    #[default]
    Any,
    /// All of them.
    All,
    /// Those of the same subject: of a bucket, the same key or object.
    Subject,
    /// Those that have the same value in this header, and those without it.
    Header(String),
}

impl Order {
    pub(super) fn parse(source: &Source, options: &mut Options<'_>) -> Result<Self, TriggerError> {
        let (subject, expected) = match source {
            Source::Stream { .. } => (Some("subject"), "subject, header:NAME or all"),
            Source::Kv { .. } => (Some("key"), "key, header:NAME or all"),
            Source::Object { .. } => (Some("name"), "name, header:NAME or all"),
            Source::Schedule(_) => (None, "all"),
        };
        let read = |text: &str| match text {
            "all" => Some(Self::All),
            text if Some(text) == subject => Some(Self::Subject),
            text => text
                .strip_prefix("header:")
                .filter(|name| subject.is_some() && is_header(name))
                .map(|name| Self::Header(name.to_owned())),
        };
        Ok(options.read("order", expected, read)?.unwrap_or_default())
    }

    pub(super) fn option(&self, source: &Source) -> Option<String> {
        let subject = match source {
            Source::Kv { .. } => "key",
            Source::Object { .. } => "name",
            Source::Stream { .. } | Source::Schedule(_) => "subject",
        };
        match self {
            Self::Any => None,
            Self::All => Some("order=all".to_owned()),
            Self::Subject => Some(format!("order={subject}")),
            Self::Header(name) => Some(format!("order=header:{name}")),
        }
    }

    /// Whether messages are told apart by a key, so that those of others go on.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        matches!(self, Self::Subject | Self::Header(_))
    }
}

fn is_header(name: &str) -> bool {
    (1..=MAX_HEADER).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
