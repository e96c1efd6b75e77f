//! The answer on the bus.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use nex_host::respond;
use nex_protocol::host::{CODE, HostError, MESSAGE};
use nex_testkit::{NatsOptions, NatsServer};
use tokio::time::timeout;

use crate::message;

#[tokio::test]
async fn an_answer_is_one_reply_with_code_text_and_body() {
    let server = NatsServer::start_with(NatsOptions { config: "max_payload: 4096\n".into(), ..NatsOptions::default() }).await;
    let bus = server.client().await;
    let mut replies = bus.subscribe("replies").await.unwrap();
    let mut call = message("", b"");

    // Nobody waits for this one.
    respond(&bus, &call, Ok("unseen".into())).await;
    call.reply = Some("replies".into());
    respond(&bus, &call, Ok(Bytes::from_static(&[0, 255]))).await;
    respond(&bus, &call, Err(HostError { code: 404, message: "no such\r\nkey".into() })).await;
    respond(&bus, &call, Ok(vec![0; 5000].into())).await;

    for (code, text, body) in [
        ("200", "OK", &[0, 255][..]),
        ("404", "no such  key", &[][..]),
        ("413", "the answer is 5000 bytes; a function can be given at most 3840", &[][..]),
    ] {
        let reply = timeout(Duration::from_secs(5), replies.next()).await.unwrap().unwrap();
        let headers = reply.headers.unwrap();
        assert_eq!((headers.get(CODE).unwrap().as_str(), headers.get(MESSAGE).unwrap().as_str()), (code, text));
        assert_eq!(&reply.payload[..], body);
    }
}
