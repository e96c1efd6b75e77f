//! Why a text is no trigger.

/// A text that is no trigger, or no value of one of its options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// Too long, or with blanks.
    #[error("a trigger is one text of up to 1024 bytes without blanks; next: write KIND:WHAT?OPTION=VALUE&…")]
    Text,
    /// No such kind.
    #[error(
        "'{0}' is not a kind of trigger; next: write one of subject:, stream:, kv:, object:, every:, cron: and at:, as in subject:{1}"
    )]
    Kind(String, String),
    /// What stands behind the kind cannot be that.
    #[error("'{what}' is not the name of a {kind}; next: {next}")]
    What {
        /// Its kind.
        kind: &'static str,
        /// What it says.
        what: String,
        /// What to write.
        next: &'static str,
    },
    /// Not of this kind of trigger.
    #[error("'{0}' is not an option of this kind of trigger; next: leave it out, or see docs/triggers.md for those there are")]
    Option(String),
    /// An option without `=`.
    #[error("the option '{0}' has no value; next: write {0}=VALUE")]
    NoValue(String),
    /// An option that is there twice.
    #[error("the option '{0}' is given twice; next: leave one out")]
    Twice(String),
    /// An option's value.
    #[error("{option}={value} cannot be; next: give {option} {expected}")]
    Value {
        /// Its option.
        option: &'static str,
        /// What it says.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

impl TriggerError {
    pub(super) fn kind(text: &str) -> Self {
        let kind = shown(text);
        Self::Kind(kind.clone(), kind)
    }

    pub(super) fn what(kind: &'static str, what: &str) -> Self {
        let next = match kind {
            "subject" => "write tokens joined by dots, without blanks; * stands for one token, > for the rest",
            "bucket" => "write letters, digits, '-' and '_', as the bucket was created",
            _ => "write it as the stream was created, without dots, wildcards and slashes",
        };
        Self::What { kind, what: shown(what), next }
    }

    pub(super) fn value(option: &'static str, value: &str, expected: &'static str) -> Self {
        Self::Value { option, value: shown(value), expected }
    }
}

/// The beginning of what somebody wrote.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}
