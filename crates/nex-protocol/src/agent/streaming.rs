//! A response that comes piece by piece, asked for by whoever waits for it: the words of that, in one header.
//!
//! ```text
//! caller                                    responder
//!   request, `pull`                ──────▶    (it may answer whole, as if nothing had been said)
//!                                  ◀──────  head, `pull`, with a subject for more
//!   empty request there            ──────▶
//!                                  ◀──────  piece, `more`  |  nothing yet, `wait`  |  `end`  |  an error
//!   … or `wait`, if it has no room ──────▶
//!   … or `gone`, which ends it     ──────▶
//! ```
//!
//! One piece is on its way at a time, so that nobody sends faster than the other takes, and each is one answer to one request.

use std::time::Duration;

/// Header of a request, of its answer and of the pieces: a [`Word`]. It is the conversation's own, and no function sees or sets it.
pub const HTTP_STREAM: &str = "Nex-Http-Stream";
/// Header of an invocation: the node that sends it pulls what its answer says is to be pulled.
pub const STREAM: &str = "Nex-Stream";

/// Longest time until a responder that has nothing yet says so.
pub const WAIT: Duration = Duration::from_secs(3);
/// Longest silence: of a responder that was asked, or of a caller that does not ask. Who is silent for longer is gone.
pub const SILENCE: Duration = Duration::from_secs(10);
/// Most bytes of a piece.
pub const MAX_PIECE: usize = 64 * 1024;
/// Most bytes of a response, and most pieces that a function gives.
pub const MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// See [`MAX_BYTES`].
pub const MAX_PIECES: u64 = 1_000_000;

/// What is said in [`HTTP_STREAM`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Of a request: its answer may be pulled. Of an answer: the rest is to be pulled.
    Pull,
    /// This is a piece, and there may be more.
    More,
    /// Of a responder: there is nothing yet; ask again. Of a caller: it is there, and asks again when it has room.
    Wait,
    /// That was all.
    End,
    /// Nobody wants the rest.
    Gone,
}

impl Word {
    const ALL: [Self; 5] = [Self::Pull, Self::More, Self::Wait, Self::End, Self::Gone];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::More => "more",
            Self::Wait => "wait",
            Self::End => "end",
            Self::Gone => "gone",
        }
    }

    /// Reads one; what is none of them says nothing.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_is_written() {
        assert!(Word::ALL.into_iter().all(|word| Word::read(word.as_str()) == Some(word)));
        assert!(["", "PULL", "more "].into_iter().all(|text| Word::read(text).is_none()));
    }
}
