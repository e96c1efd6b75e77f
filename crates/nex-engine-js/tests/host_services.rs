//! Host services as a script asks for them: what the host is asked, what the script gets, and what goes wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;

use common::{call, failure, reply, started};
use nex_engine::{Call, Function as _};

#[tokio::test]
async fn host_services_are_called_as_0_2_7_has_them() {
    let source = "(s, p) => { const { kv, http, messaging, objectStore } = this.hostServices;
        const text = (b) => [...b];
        return [text(kv.get('key')), kv.set('k', new Uint8Array([1, 128, 255])), kv.delete('k'), kv.keys(),
          messaging.publish('out', p), text(messaging.request('ask', p)),
          text(objectStore.get('o')).length, objectStore.put('o', p), objectStore.delete('o'), objectStore.list(),
          http.get('http://h/p?q=1'), http.post('http://h', p), http.head('http://h'), [...http.del('http://h').bytes]] }";
    let (function, fixture) = started(source).await;
    let reply = function.invoke(call("pay")).await.unwrap();
    let http = r#"{"status":200,"headers":{"Vary":"a, b","X":"y"},"response":"hé"}"#;
    let expected = format!(
        r#"[[0,128,255],null,null,["one","two"],null,[112,97,121],16,{{"name":"thing","size":3}},null,[{{"name":"thing"}}],{http},{http},{{"status":204,"response":null}},[104,195,169]]"#
    );
    assert_eq!(std::str::from_utf8(&reply.payload), Ok(expected.as_str()));
    let asked = fixture.host.asked.lock().unwrap();
    let shown: Vec<_> =
        asked.iter().map(|ask| format!("{}.{} {} {:?}", ask.service, ask.method, ask.target, &ask.body[..])).collect();
    assert_eq!(shown[1], "kv.set k [1, 128, 255]");
    assert_eq!(shown[10], "http.get http://h/p?q=1 []");
    assert_eq!(shown[13], "http.delete http://h []");
}

#[tokio::test]
async fn fetch_asks_the_host_and_messages_have_headers() {
    let source = "async (s, p) => {
        const response = await fetch('http://h/p#part', { method: 'post', body: 'x', headers: { 'X-Mine': '1' } });
        const seen = [response.status, response.ok, response.headers.get('vary'), await response.text(), (await fetch(new Request('http://h', { method: 'HEAD' }))).body];
        await hostServices.messaging.publish('out', p, { headers: { 'Nats-Msg-Id': '7' } });
        const answer = await hostServices.messaging.request('ask', p, { headers: new Headers([['a', 'b']]) });
        return [...seen, answer.length, (await hostServices.kv.get('key')).length] }";
    let (function, fixture) = started(source).await;
    let reply = function.invoke(call("pay")).await.unwrap().payload;
    assert_eq!(std::str::from_utf8(&reply), Ok(r#"[200,true,"a, b","hé",null,3,3]"#));
    let asked = fixture.host.asked.lock().unwrap().clone();
    assert_eq!((asked[0].method.as_str(), asked[0].target.as_str(), &asked[0].body[..]), ("post", "http://h/p", &b"x"[..]));
    let headers = |at: usize| asked[at].headers.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>();
    assert_eq!(headers(0), ["content-type: text/plain;charset=UTF-8", "x-mine: 1"]);
    assert_eq!((headers(2), headers(3)), (vec!["Nats-Msg-Id: 7".to_owned()], vec!["a: b".to_owned()]));
    for (wrong, expected) in [
        ("fetch('http://h', { method: 'OPTIONS' })", "TypeError: fetch: the host makes no OPTIONS requests"),
        ("fetch('http://h', { signal: AbortSignal.abort() })", "AbortError"),
        ("hostServices.messaging.publish('a', new Uint8Array(), { headers: { 'a b': 'c' } })", "Invalid header name: a b"),
    ] {
        let text = failure(&format!("async () => {wrong}")).await;
        assert!(text.contains(expected), "{wrong}: {text}");
    }
}

#[tokio::test]
async fn what_is_sent_has_the_trace_of_its_call_unless_it_has_its_own() {
    let source = "async (s, p) => {
        await fetch('http://h');
        await fetch('http://h', { headers: { TraceParent: 'mine' } });
        await hostServices.messaging.publish('out', p);
        await hostServices.messaging.request('ask', p, { headers: { a: 'b' } });
        await hostServices.kv.set('k', new Uint8Array([1])) }";
    let (function, fixture) = started(source).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", parent), ("tracestate", "a=1")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    function.invoke(Call { headers: headers.clone().into(), ..call("") }).await.unwrap();
    // The next call has none.
    function.invoke(call("")).await.unwrap();
    let asked = fixture.host.asked.lock().unwrap().clone();
    assert_eq!(asked[0].headers, headers);
    assert_eq!(asked[1].headers, [("traceparent".to_owned(), "mine".to_owned())]);
    assert_eq!(asked[2].headers, headers);
    assert_eq!(asked[3].headers, [&[("a".to_owned(), "b".to_owned())], &headers[..]].concat());
    assert!(asked[4..].iter().all(|one| one.headers.iter().all(|(_, value)| value != parent)), "{asked:?}");
}

#[tokio::test]
async fn request_many_gives_the_bytes_of_every_reply() {
    // The host of this test answers with what it was sent: two replies as the host service encodes them.
    let source = "(s, p) => hostServices.messaging.requestMany('ask', p).map((reply) => [...reply])";
    let (function, _fixture) = started(source).await;
    assert_eq!(function.invoke(call(r#"["aGk=","gA=="]"#)).await.unwrap().payload, "[[104,105],[128]]");
}

#[tokio::test]
async fn errors_of_host_services_are_thrown_as_strings() {
    for (ask, expected) in [
        ("kv.get()", "key is required"),
        ("kv.get('a', 'b')", "key is required"),
        ("kv.set('a')", "key and value are required"),
        ("kv.set('a', 'text')", "failed to marshal v8 value to []byte: only Uint8[] is supported"),
        ("kv.get('absent')", "Error: failed to get value for key (500)"),
        ("http.get()", "url is required"),
        ("messaging.request('a')", "subject and payload are required"),
        ("messaging.requestMany('a')", "subject and payload are required"),
        ("objectStore.put('a')", "name and value are required"),
    ] {
        let source = format!("() => {{ try {{ hostServices.{ask} }} catch (e) {{ return [typeof e, e] }} }}");
        assert_eq!(reply(&source).await, Ok(format!("[\"string\",\"{expected}\"]")), "{ask}");
        assert_eq!(failure(&format!("() => hostServices.{ask}")).await, expected);
    }
}
