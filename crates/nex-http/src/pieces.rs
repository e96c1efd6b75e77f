//! The body of a response that is pulled piece by piece from whoever answers, no faster than the client takes it. One that breaks off
//! breaks the connection off, so that no client takes a part for the whole.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use nex_bus::streaming::{Part, Puller};
use nex_process::TaskScope;
use nex_protocol::agent::streaming::{MAX_BYTES, WAIT};
use tokio::sync::mpsc;

/// The response breaks off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the response broke off: {0}")]
pub(crate) struct Broken(String);

/// What has been pulled. Dropped, it says that nobody wants the rest.
#[derive(Debug)]
pub(crate) struct Pieces(mpsc::Receiver<Result<Bytes, Broken>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Poll::Ready(ready!(self.0.poll_recv(context)).map(|piece| piece.map(Frame::data)))
    }
}

/// Begins to pull.
pub(crate) fn pull(scope: &TaskScope, puller: Puller) -> Pieces {
    let (sender, pieces) = mpsc::channel(1);
    scope.spawn("response", async move {
        if !take_all(&puller, &sender).await {
            puller.gone().await;
        }
    });
    Pieces(pieces)
}

/// Until the end, of which whoever answers knows; false if it has to be told.
async fn take_all(puller: &Puller, client: &mpsc::Sender<Result<Bytes, Broken>>) -> bool {
    let mut bytes = 0_u64;
    loop {
        let part = tokio::select! {
            part = puller.next() => part,
            () = client.closed() => return false,
        };
        let piece = match part {
            Part::Piece(piece) => piece,
            Part::Wait => continue,
            Part::End => return true,
            Part::Failed(_, why) => {
                tracing::debug!(why, "a response broke off");
                client.send(Err(Broken(why))).await.ok();
                return true;
            }
        };
        bytes = bytes.saturating_add(piece.len() as u64);
        if bytes > MAX_BYTES {
            client.send(Err(Broken(format!("it has more than {MAX_BYTES} bytes")))).await.ok();
            return false;
        }
        let mut taken = pin!(client.send(Ok(piece)));
        loop {
            tokio::select! {
                taken = &mut taken => match taken {
                    Ok(()) => break,
                    Err(_gone) => return false,
                },
                () = tokio::time::sleep(WAIT) => puller.hold().await,
            }
        }
    }
}
