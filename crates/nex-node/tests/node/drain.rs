//! A member of a queue group that leaves it while messages come.
#![allow(clippy::disallowed_methods, reason = "each member ends by its own token, and is awaited")]

use futures::StreamExt as _;
use nex_bus::drain::Draining;
use nex_testkit::NatsServer;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How many members leave, one after the other.
const MEMBERS: usize = 40;
/// Most messages: fewer than a client keeps for a member that cannot keep up.
const MESSAGES: usize = 40_000;

/// Returns when the server has dealt with all that this client had sent.
async fn comes_round(client: &async_nats::Client) {
    let inbox = client.new_inbox();
    let mut end = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    end.next().await.unwrap();
}

/// Answers and counts what a member of the group gets until it has left.
async fn member(url: String, stop: CancellationToken, joined: oneshot::Sender<()>) -> usize {
    let client = async_nats::connect(url).await.unwrap();
    let subscription = client.queue_subscribe("work", "group".to_owned()).await.unwrap();
    comes_round(&client).await;
    joined.send(()).unwrap();
    let mut messages = Draining::new(client.clone(), subscription, stop);
    let mut count = 0;
    while messages.next().await.is_some() {
        count += 1;
        client.publish("done", "".into()).await.unwrap();
    }
    count
}

/// Publishes until it is told to stop; how many messages that were.
async fn publisher(client: async_nats::Client, stop: CancellationToken) -> usize {
    let mut count = 0;
    while !stop.is_cancelled() && count < MESSAGES {
        client.publish("work", "x".into()).await.unwrap();
        count += 1;
        if count % 64 == 0 {
            comes_round(&client).await;
        }
    }
    comes_round(&client).await;
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_when_a_member_of_a_queue_group_leaves() {
    let nats = NatsServer::start().await;
    let join = || async {
        let (stop, (joined, is_in)) = (CancellationToken::new(), oneshot::channel());
        let count = tokio::spawn(member(nats.url(), stop.clone(), joined));
        is_in.await.unwrap();
        (stop, count)
    };
    // One stays: the server gives a message whose member has just gone to another one that it knew then.
    let stays = join().await;
    let mut last = join().await;
    let enough = CancellationToken::new();
    let published = tokio::spawn(publisher(async_nats::connect(nats.url()).await.unwrap(), enough.clone()));
    let mut got = 0;
    for _ in 0..MEMBERS {
        let (stop, count) = std::mem::replace(&mut last, join().await);
        stop.cancel();
        got += count.await.unwrap();
    }
    enough.cancel();
    let published = published.await.unwrap();
    for (stop, count) in [last, stays] {
        stop.cancel();
        got += count.await.unwrap();
    }
    assert_eq!(got, published);
}
