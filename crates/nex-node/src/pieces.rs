//! A response that comes piece by piece, on its way from an agent to whoever asked: a piece is asked of the agent when somebody asks for it
//! here, so that nothing piles up in the node.

use std::pin::pin;

use async_nats::Client;
use nex_bus::own_headers::of_function;
use nex_bus::streaming::{Asked, Part, Pulls};
use nex_protocol::agent::streaming::WAIT;
use nex_protocol::reply::ReplySubject;

use crate::agents::Streamed;

/// Until all is sent, or nobody wants it.
///
/// # Errors
/// What broke it off; whoever asked knows of it.
pub(crate) async fn pass_on(nats: &Client, to: ReplySubject, mut streamed: Streamed) -> Result<(), String> {
    let head = of_function(std::mem::take(&mut streamed.headers));
    let Some(mut pulls) = Pulls::begin(nats, to, head).await else {
        streamed.gone().await;
        return Err("the response cannot be sent piece by piece on this connection".to_owned());
    };
    loop {
        let Some(part) = next(&mut pulls, &streamed).await else {
            streamed.gone().await;
            return Ok(());
        };
        let end = match &part {
            Part::Piece(_) | Part::Wait => None,
            Part::End => Some(Ok(())),
            Part::Failed(_, why) => Some(Err(why.clone())),
        };
        pulls.answer(part).await;
        if let Some(end) = end {
            return end;
        }
    }
}

/// The part that is asked for; nothing where nobody asks any more.
async fn next(pulls: &mut Pulls, streamed: &Streamed) -> Option<Part> {
    {
        let mut asked = pin!(pulls.next());
        loop {
            tokio::select! {
                asked = &mut asked => match asked {
                    Asked::Next => break,
                    Asked::Gone => return None,
                },
                () = tokio::time::sleep(WAIT) => streamed.hold().await,
            }
        }
    }
    let mut part = pin!(streamed.next());
    loop {
        tokio::select! {
            part = &mut part => return Some(part),
            // Asked again; the part is the answer to that.
            asked = pulls.next() => if asked == Asked::Gone { return None },
        }
    }
}
