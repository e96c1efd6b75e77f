//! Both ends of a response that comes piece by piece ([`nex_protocol::agent::streaming`]): [`Pulls`] of the responder, [`Puller`] of the
//! caller.

use std::fmt;

use async_nats::{Client, HeaderMap, HeaderValue, Message, Request, RequestErrorKind, Subject, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use nex_protocol::agent::streaming::{HTTP_STREAM, SILENCE, Word};
use nex_protocol::reply::ReplySubject;

use crate::service_error;

/// How inboxes begin, those of users with a prefix of their own among them; no trigger and no subject of a server does.
const INBOXES: &str = "_";

/// What a message says of pieces.
#[must_use]
pub fn word(headers: Option<&HeaderMap>) -> Option<Word> {
    headers?.get(HTTP_STREAM).map(HeaderValue::as_str).and_then(Word::read)
}

/// The responder's end: what is asked of it.
#[derive(Debug)]
pub struct Pulls {
    client: Client,
    asked: Subscriber,
    /// Who waits for an answer.
    waiting: Option<Subject>,
}

/// What the caller says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It waits for a piece.
    Next,
    /// It wants nothing any more, or says nothing any more.
    Gone,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A piece.
    Piece(Bytes),
    /// Nothing yet.
    Wait,
    /// That was all.
    End,
    /// There is no rest: code and reason.
    Failed(u16, String),
}

impl Pulls {
    /// Answers a request with the head of a response, whose rest may be asked for from now on. Nothing where the connection does not take that.
    pub async fn begin(client: &Client, to: ReplySubject, mut head: HeaderMap) -> Option<Self> {
        let subject = Subject::from(client.new_inbox());
        let asked = client.subscribe(subject.clone()).await.ok()?;
        head.insert(HTTP_STREAM, Word::Pull.as_str());
        let sent = client.publish_with_reply_and_headers(String::from(to), subject, head, Bytes::new()).await;
        sent.ok().map(|()| Self { client: client.clone(), asked, waiting: None })
    }

    /// Waits for the caller. It may ask again before it has an answer; then the last question is answered.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Asked {
        loop {
            let said = if self.waiting.is_some() {
                self.asked.next().await
            } else {
                tokio::time::timeout(SILENCE, self.asked.next()).await.ok().flatten()
            };
            let Some(Message { reply, headers, .. }) = said else { return Asked::Gone };
            match (word(headers.as_ref()), reply) {
                (Some(Word::Wait), _) => {}
                (Some(Word::Gone), _) | (_, None) => return Asked::Gone,
                (_, Some(reply)) => {
                    self.waiting = Some(reply);
                    return Asked::Next;
                }
            }
        }
    }

    /// Whether the caller waits for an answer.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.waiting.is_some()
    }

    /// Answers whoever waits, if anybody does.
    pub async fn answer(&mut self, part: Part) {
        let Some(to) = self.waiting.take().and_then(|reply| ReplySubject::parse(&reply).ok()) else { return };
        let (word, body) = match part {
            Part::Piece(bytes) => (Word::More, bytes),
            Part::Wait => (Word::Wait, Bytes::new()),
            Part::End => (Word::End, Bytes::new()),
            Part::Failed(code, why) => return service_error::refuse(&self.client, Some(to), code, &why).await,
        };
        let mut headers = HeaderMap::new();
        headers.insert(HTTP_STREAM, word.as_str());
        self.client.publish_with_headers(String::from(to), headers, body).await.ok();
    }
}

/// The caller's end: asks for the rest of a response. Whoever drops it before its end says [`Puller::gone`] first.
#[derive(Clone)]
pub struct Puller {
    client: Client,
    subject: Subject,
}

impl fmt::Debug for Puller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Puller").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl Puller {
    /// The rest of what an answer begins, if it is only a head.
    #[must_use]
    pub fn of(client: &Client, answer: &Message) -> Option<Self> {
        let subject = answer.reply.clone().filter(|_| word(answer.headers.as_ref()) == Some(Word::Pull))?;
        // A responder chooses it, and it is published to with the caller's rights: an inbox is nobody's but a client's.
        ReplySubject::parse(&subject).ok().filter(|_| subject.starts_with(INBOXES))?;
        Some(Self { client: client.clone(), subject })
    }

    /// Where it asks.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The next part. A responder that says nothing has failed.
    pub async fn next(&self) -> Part {
        let request = Request::new().payload(Bytes::new()).timeout(Some(SILENCE));
        let answer = match self.client.send_request(self.subject.clone(), request).await {
            Ok(answer) => answer,
            Err(error) => {
                let why = match error.kind() {
                    RequestErrorKind::NoResponders | RequestErrorKind::TimedOut => "who was answering is gone".to_owned(),
                    _ => error.to_string(),
                };
                return Part::Failed(500, why);
            }
        };
        match word(answer.headers.as_ref()) {
            Some(Word::More) => Part::Piece(answer.payload),
            Some(Word::Wait) => Part::Wait,
            Some(Word::End) => Part::End,
            Some(Word::Pull | Word::Gone) | None => {
                let (code, why) =
                    service_error::read(&answer).unwrap_or((500, "the answer is no piece of a response".to_owned()));
                Part::Failed(code, why)
            }
        }
    }

    /// Says that nobody wants the rest.
    pub async fn gone(&self) {
        self.say(Word::Gone).await;
    }

    /// Says that it is there, but has no room for more yet.
    pub async fn hold(&self) {
        self.say(Word::Wait).await;
    }

    async fn say(&self, word: Word) {
        let mut headers = HeaderMap::new();
        headers.insert(HTTP_STREAM, word.as_str());
        self.client.publish_with_headers(self.subject.clone(), headers, Bytes::new()).await.ok();
    }
}
