//! Where an answer may go.
//!
//! NATS checks the permissions of whoever publishes, and a reply subject is chosen by whoever asks: an answer to it is published with
//! the answerer's rights. So a reply subject is parsed before it is used, and the subjects that mean something to a server or to a
//! node (`$NEX`, `$JS`, `$KV`, `$O`, `$SYS`, `$SRV`, …) are none.

use std::fmt;

/// Longest reply subject, bytes.
const MAX_BYTES: usize = 1024;

/// A subject that an answer may be published to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReplySubject(String);

/// A reply subject that no answer goes to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no answer goes to '{0}': a reply subject is a plain subject whose first token does not begin with '$'")]
pub struct ForbiddenReply(String);

impl ReplySubject {
    /// Parses what a requester named.
    ///
    /// # Errors
    /// [`ForbiddenReply`] for a subject of a server's or a node's own, for wildcards, and for what is no subject.
    pub fn parse(text: &str) -> Result<Self, ForbiddenReply> {
        let is_plain = |token: &str| {
            !token.is_empty() && !token.contains(['*', '>']) && !token.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        if text.len() <= MAX_BYTES && !text.starts_with('$') && text.split('.').all(is_plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(ForbiddenReply(text.chars().take(100).collect()))
    }

    /// The reply subject of a message, if it has one that an answer may go to. JetStream's acknowledgements (`$JS.ACK.…`) are none:
    /// they are not for a function's output.
    #[must_use]
    pub fn of(reply: Option<&str>) -> Option<Self> {
        Self::parse(reply?).ok()
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplySubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<ReplySubject> for String {
    fn from(subject: ReplySubject) -> Self {
        subject.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn inboxes_and_plain_subjects_are_answered_and_reserved_ones_are_not() {
        for text in ["_INBOX.abc.1", "_R_.x.y", "answers.here", "ME", "a.$b"] {
            assert_eq!(ReplySubject::parse(text).map(String::from), Ok(text.to_owned()));
        }
        for text in ["$NEX.LAMEDUCK.N", "$KV.b.k", "$O.b.M.x", "$JS.API.STREAM.DELETE.x", "$JS.ACK.s.c.1.2.3.4.5", "$SYS.x", "$"]
        {
            assert!(ReplySubject::parse(text).is_err(), "{text}");
        }
        for text in ["", ".", "a.", "a..b", "a b", "a.*", "a.>", "a\r\nPUB x 0", &"a".repeat(2_000)] {
            assert!(ReplySubject::parse(text).is_err(), "{text}");
        }
        assert_eq!(ReplySubject::of(None), None);
    }

    proptest! {
        #[test]
        fn no_accepted_reply_is_reserved_or_breaks_the_protocol(text in "\\PC{0,40}") {
            if let Ok(reply) = ReplySubject::parse(&text) {
                prop_assert!(!reply.as_str().starts_with('$') && !reply.as_str().contains(char::is_whitespace));
            }
        }
    }
}
