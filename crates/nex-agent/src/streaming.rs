//! A call whose response may go out piece by piece: as the function writes it, at the pace of whoever asked.

use std::pin::{Pin, pin};

use async_nats::{Client, HeaderMap};
use nex_bus::own_headers::of_function;
use nex_bus::streaming::{Asked, Part, Pulls, word};
use nex_engine::{CallError, Reply, Streamed};
use nex_protocol::agent::streaming::{WAIT, Word};
use nex_protocol::reply::ReplySubject;

use crate::invoke;

/// Who may be answered piece by piece, and how.
pub(crate) struct Taker<'a> {
    pub(crate) client: &'a Client,
    pub(crate) to: ReplySubject,
    /// Headers of the head beside the function's own.
    pub(crate) envelope: HeaderMap,
}

/// What came of a call.
pub(crate) enum Came {
    /// All of it, for whoever asked.
    Whole(Result<Reply, CallError>),
    /// It was sent, or broke off, of which whoever asked knows.
    Streamed(Result<(), CallError>),
}

/// Whether a request says that its answer may come piece by piece.
pub(crate) fn is_taken(headers: Option<&HeaderMap>) -> bool {
    word(headers) == Some(Word::Pull)
}

/// Waits for a call, and sends what it writes meanwhile.
pub(crate) async fn follow(
    called: impl Future<Output = Result<Reply, CallError>>,
    mut streamed: Streamed,
    taker: Taker<'_>,
) -> Came {
    let (mut called, mut done) = (pin!(called), None);
    let head = tokio::select! {
        biased;
        Ok(head) = &mut streamed.head => head,
        outcome = &mut called => match streamed.head.try_recv() {
            Ok(head) => {
                done = Some(outcome);
                head
            }
            Err(_whole) => return Came::Whole(outcome),
        },
    };
    let mut headers = of_function(head);
    for (name, values) in taker.envelope.iter() {
        values.iter().for_each(|value| headers.insert(name.clone(), value.clone()));
    }
    let Some(pulls) = Pulls::begin(taker.client, taker.to, headers).await else {
        return Came::Whole(Err(CallError::Failed("the response cannot be sent piece by piece on this connection".to_owned())));
    };
    Came::Streamed(send(pulls, streamed, called, done).await)
}

type Done = Result<Reply, CallError>;

/// Until all is sent, or nobody wants it: then the call is ended by being dropped.
async fn send(
    mut pulls: Pulls,
    mut streamed: Streamed,
    mut called: Pin<&mut impl Future<Output = Done>>,
    mut done: Option<Done>,
) -> Result<(), CallError> {
    loop {
        if !pulls.is_asked() {
            tokio::select! {
                asked = pulls.next() => if asked == Asked::Gone { return Ok(()) },
                outcome = &mut called, if done.is_none() => done = Some(outcome),
            }
            continue;
        }
        let part = match done.take() {
            None => tokio::select! {
                biased;
                asked = pulls.next() => match asked {
                    Asked::Gone => return Ok(()),
                    Asked::Next => continue,
                },
                Some(piece) = streamed.pieces.recv() => Part::Piece(streamed.joined(piece)),
                outcome = &mut called => {
                    done = Some(outcome);
                    continue;
                }
                () = tokio::time::sleep(WAIT) => Part::Wait,
            },
            // All pieces were sent before it ended.
            Some(outcome) => match streamed.pieces.try_recv() {
                Ok(piece) => {
                    done = Some(outcome);
                    Part::Piece(streamed.joined(piece))
                }
                Err(_none) => return finish(pulls, outcome).await,
            },
        };
        pulls.answer(part).await;
    }
}

async fn finish(mut pulls: Pulls, outcome: Done) -> Result<(), CallError> {
    let last = match &outcome {
        Ok(_) => Part::End,
        Err(error) => {
            let failed = invoke::error(error);
            Part::Failed(failed.code, failed.message)
        }
    };
    pulls.answer(last).await;
    outcome.map(drop)
}
