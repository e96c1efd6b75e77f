//! An ordinary NATS micro service, and so an ordinary native workload: nex gives it an environment, takes its output as
//! log lines and sends it SIGINT when it must go. There is nothing of nex in it.
//!
//! `nats req svc.echo hello` is answered with `hello`; `nats micro ls` shows `EchoService`.
//!
//! Deployed with triggers, as `--trigger stream:ORDERS`, it is asked on the subject in `NEX_TRIGGER_SUBJECT` to deal with each message: its
//! answer acknowledges, an error has the message delivered again.

use anyhow::Context as _;
use async_nats::ConnectOptions;
use async_nats::service::ServiceExt as _;
use async_nats::service::error::Error;
use futures::{StreamExt as _, stream};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "standard output is the log of a workload")]
#[expect(clippy::disallowed_methods, reason = "the environment is all that nex gives a workload")]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("NATS_URL").context("NATS_URL is not set: run me with NATS_URL=nats://<ip>:<port>")?;
    let client = options().await?.connect(&url).await.with_context(|| format!("cannot connect to {url}"))?;
    let mut interrupted = signal(SignalKind::interrupt())?;

    let service = client.service_builder().description("Answers with what it is sent").start("EchoService", "1.0.0");
    let service = service.await.map_err(anyhow::Error::from_boxed)?;
    let mut requests = service.endpoint("svc.echo").await.map_err(anyhow::Error::from_boxed)?;
    let mut messages = match std::env::var("NEX_TRIGGER_SUBJECT") {
        Ok(subject) => service.endpoint(subject).await.map_err(anyhow::Error::from_boxed)?.boxed(),
        Err(_none) => stream::pending().boxed(),
    };
    println!("EchoService listens on svc.echo");

    loop {
        tokio::select! {
            Some(message) = messages.next() => {
                let payload = String::from_utf8_lossy(&message.message.payload).into_owned();
                println!("got {payload}");
                let dealt_with = match payload.starts_with("bad") {
                    true => Err(Error { code: 422, status: format!("no {payload}") }),
                    false => Ok("".into()),
                };
                message.respond(dealt_with).await?;
            }
            request = requests.next() => {
                let Some(request) = request else { break };
                let payload = request.message.payload.clone();
                request.respond(Ok(payload)).await?;
            }
            _ = interrupted.recv() => break,
        }
    }
    service.stop().await.map_err(anyhow::Error::from_boxed)?;
    client.flush().await?;
    println!("EchoService says goodbye");
    Ok(())
}

/// What nex tells a service of how to connect, as the `nats` command reads it: credentials, root certificates and the prefix of its inboxes.
#[expect(clippy::disallowed_methods, reason = "the environment is all that nex gives a workload")]
async fn options() -> anyhow::Result<ConnectOptions> {
    let mut options = ConnectOptions::new();
    if let Ok(file) = std::env::var("NATS_CREDS") {
        options = options.credentials_file(&file).await.with_context(|| format!("cannot read {file}"))?;
    }
    if let Ok(file) = std::env::var("NATS_CA") {
        options = options.add_root_certificates(file.into());
    }
    if let Ok(prefix) = std::env::var("NATS_INBOX_PREFIX") {
        options = options.custom_inbox_prefix(prefix);
    }
    Ok(options)
}
