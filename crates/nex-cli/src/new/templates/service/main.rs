//! A service that keeps running: a NATS micro service, as any other. nex gives it an environment, takes its output as log lines and sends
//! it SIGINT when it must go.

use async_nats::service::ServiceExt;
use futures::StreamExt;

fn greeting(name: &str) -> String {
    let name = if name.is_empty() { "world" } else { name };
    format!("Hello, {name}!")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), async_nats::Error> {
    let client = async_nats::connect(std::env::var("NATS_URL")?).await?;
    let service = client.service_builder().description("Greets").start("{{name}}", "0.1.0").await?;
    let mut requests = service.endpoint("{{name}}.hello").await?;
    println!("listening on {{name}}.hello");
    loop {
        tokio::select! {
            Some(request) = requests.next() => {
                let name = String::from_utf8_lossy(&request.message.payload);
                let answer = greeting(name.trim());
                request.respond(Ok(answer.into())).await?;
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    service.stop().await?;
    client.drain().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_greets() {
        assert_eq!(super::greeting("Ada"), "Hello, Ada!");
        assert_eq!(super::greeting(""), "Hello, world!");
    }
}
