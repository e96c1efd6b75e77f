//! What functions are measured beside, written by hand: a consumer of a stream, and a server of HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use async_nats::Client;
use async_nats::jetstream::{self, consumer::pull};
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Collected, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::streams::BATCH;

/// The obvious consumer: takes messages in batches and acknowledges each.
pub(crate) async fn consume(client: Client, stream: &str) -> Result<()> {
    let stream = jetstream::new(client).get_stream(stream).await?;
    let config = pull::Config { durable_name: Some("by-hand".to_owned()), ..pull::Config::default() };
    let consumer = stream.get_or_create_consumer("by-hand", config).await?;
    let mut messages = consumer.stream().max_messages_per_batch(BATCH).messages().await?;
    while let Some(message) = messages.next().await {
        message?.ack().await.map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    Ok(())
}

/// The obvious server: answers with the body of the request, or with what is answered on a subject.
pub(crate) async fn serve(listen: SocketAddr, asked: Option<(Client, String)>) -> Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let asked = asked.clone();
        #[expect(clippy::disallowed_methods, reason = "the process ends with its connections")]
        drop(tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, asked.clone()));
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
        }));
    }
}

async fn answer(request: Request<Incoming>, asked: Option<(Client, String)>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    let body = match asked {
        None => body,
        Some((client, subject)) => client.request(subject, body).await.map(|reply| reply.payload).unwrap_or_default(),
    };
    Ok(Response::new(Full::new(body)))
}
