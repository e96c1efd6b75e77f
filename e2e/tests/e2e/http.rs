//! HTTP requests as triggers: routed, answered whole, and refused with what is wrong.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use nex_testkit::guest;

use crate::world::{World, free_port};

const SHOP: &str = "export default {
    async fetch(request, env) {
        const url = new URL(request.url);
        if (url.pathname === '/orders' && request.method === 'POST') {
            const order = await request.json();
            return Response.json({ got: order.item, host: url.host, query: url.search, client: request.headers.get('nex-http-client') !== null },
                { status: 201, headers: { 'X-Mine': '1', 'Set-Cookie': 'a=1' } });
        }
        if (url.pathname === '/gone') return Response.json({ error: 'no such order' }, { status: 404 });
        if (url.pathname === '/broken') throw new Error('it broke');
        return new Response(`${request.method} ${url.pathname} ${url.protocol}`);
    }
};";

/// A node with a listener, and its port.
pub(crate) fn world() -> (World, crate::running::Running, u16) {
    let (world, port) = (World::new(), free_port());
    let up = world.up(&["--http", &format!("127.0.0.1:{port}")]);
    (world, up, port)
}

/// What is answered to these bytes, until the listener closes.
fn raw(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // It may answer and close before all was sent.
    drop(stream.write_all(request));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

fn ask(port: u16, line: &str, headers: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    raw(
        port,
        format!("{line} HTTP/1.1\r\nHost: shop.example:{port}\r\nConnection: close\r\n{length}{headers}\r\n{body}").as_bytes(),
    )
}

#[test]
fn a_request_starts_the_function_of_its_route_and_gets_its_response() {
    let (world, _up, port) = world();
    world.file("shop.mjs", SHOP);
    let routes = ["http:POST /orders", "http:GET /orders/{id}", "http:/gone", "http:/broken", "http:GET /files/{path...}"];
    let mut line = vec!["devrun", "shop.mjs"];
    line.extend(routes.iter().flat_map(|route| ["--trigger", route]));
    world.nex(&line).expect(0).says(&["shopmjs"]);
    let made = ask(port, "POST /orders?a=b", "Content-Type: application/json\r\n", r#"{"item":"tea"}"#);
    assert!(made.starts_with("HTTP/1.1 201 Created\r\n"), "{made}");
    let lower = made.to_lowercase();
    assert!(lower.contains("x-mine: 1") && lower.contains("set-cookie: a=1") && lower.contains("content-type: application/json"));
    assert!(made.ends_with(&format!(r#"{{"got":"tea","host":"shop.example:{port}","query":"?a=b","client":true}}"#)), "{made}");
    assert!(!lower.contains("nex-"), "{made}");
    let read = ask(port, "GET /orders/4%202", "", "");
    assert!(read.ends_with("GET /orders/4%202 http:"), "{read}");
    assert!(ask(port, "GET /files/a/b/c", "", "").ends_with("GET /files/a/b/c http:"));
    let gone = ask(port, "DELETE /gone", "", "");
    assert!(gone.starts_with("HTTP/1.1 404") && gone.ends_with(r#"{"error":"no such order"}"#), "{gone}");
    let broken = ask(port, "GET /broken", "", "");
    assert!(broken.starts_with("HTTP/1.1 500") && broken.contains("it broke"), "{broken}");
    for (line, status) in [("GET /orders", "404"), ("GET /nowhere", "404"), ("POST /orders/42", "404")] {
        let answer = ask(port, line, "", "");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains("no function serves this"),
            "{line}: {answer}"
        );
    }
    world.nex(&["describe", "shopmjs"]).expect(0).says(&["nex.http.default.POST.orders"]);
    world.nex(&["node", "info", &world.node_id()]).expect(0).says(&["nex.http"]);
    let ours = ask(port, "GET /orders/1", "Nex-Http-Method: DELETE\r\nNats-Msg-Id: x\r\nNex-Http-Path: /gone\r\n", "");
    assert!(ours.ends_with("GET /orders/1 http:"), "a client says nothing in our name: {ours}");
}

#[test]
fn a_route_that_no_node_listens_for_is_told_when_it_is_deployed() {
    let world = World::with_nats();
    let silent = world.node_up(&["--state-dir", "silent"]);
    world.file("shop.mjs", SHOP);
    let line = ["devrun", "shop.mjs", "--trigger", "http:/orders"];
    let nobody = "No node listens for HTTP";
    world.nex(&line).expect(0).says(&[nobody]);
    world.file("nex.toml", "[workloads.other]\nfile = 'shop.mjs'\ntriggers = ['http:/gone']\n");
    world.nex(&["apply"]).expect(0).says(&[nobody]);
    // Any node may listen for it.
    let listening = world.node_up(&["--state-dir", "listening", "--http", &format!("127.0.0.1:{}", free_port())]);
    world.nex(&line).expect(0).says_not(nobody);
    drop((silent, listening));
}

#[test]
fn hostile_requests_are_refused_and_the_next_one_is_answered() {
    let (world, _up, port) = world();
    world.file("all.js", "(subject, payload) => ({ subject, bytes: payload.length })");
    world.nex(&["devrun", "all.js", "--trigger", "http:/{all...}"]).expect(0);
    for (line, headers, body, status) in [
        ("GET /a/../b", "", "", "400"),
        ("GET /a/%2e%2E/b", "", "", "400"),
        ("GET /%zz", "", "", "400"),
        ("get /", "", "", "501"),
        ("CONNECT a:80", "", "", "501"),
        ("GET /", "Upgrade: websocket\r\n", "", "501"),
        ("POST /", "Content-Length: 99999999\r\n", "", "413"),
        ("POST /", "X-Not: \u{1}\r\n", "", "400"),
    ] {
        let answer = ask(port, line, headers, body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line} {headers}: {answer}");
    }
    let long = ask(port, &format!("GET /{}", "a".repeat(1000)), "", "");
    assert!(long.starts_with("HTTP/1.1 414"), "{long}");
    let many: String = (0..200).map(|number| format!("X-{number}: 1\r\n")).collect();
    assert!(ask(port, "GET /", &many, "").starts_with("HTTP/1.1 431"));
    let wide = ask(port, "GET /", &format!("X: {}\r\n", "y".repeat(20_000)), "");
    assert!(wide.starts_with("HTTP/1.1 431"), "{wide}");
    // Two lengths, or a length and chunks, are how requests are smuggled past a proxy.
    let smuggled = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde";
    assert!(raw(port, smuggled).starts_with("HTTP/1.1 400"));
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert!(raw(port, chunked.as_bytes()).ends_with(r#""bytes":3}"#));
    let chunk = format!("ffff\r\n{}\r\n", "x".repeat(0xffff));
    let endless =
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned() + &chunk.repeat(40);
    assert!(raw(port, endless.as_bytes()).starts_with("HTTP/1.1 413"));
    assert!(ask(port, "POST /fine", "", "body").ends_with(r#"{"subject":"nex.http.default.POST.fine","bytes":4}"#));
}

#[test]
fn what_a_proxy_could_take_for_two_requests_is_refused_and_who_stalls_keeps_nobody() {
    let (world, _up, port) = world();
    world.file("all.js", "(subject, payload) => ({ subject, bytes: payload.length })");
    world.nex(&["devrun", "all.js", "--trigger", "http:/{all...}"]).expect(0);
    // A length beside chunks: whatever a proxy took it for, nothing of it is another request.
    let both = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = raw(port, both.as_bytes());
    assert!(answer.matches("HTTP/1.1 ").count() == 1 && !answer.contains("smuggled"), "{answer}");
    for odd in [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 4, 5\r\n",
        " Folded: 1\r\n",
        "Bare\rReturn: 1\r\n",
    ] {
        let answer = raw(port, format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{odd}\r\n0\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{odd}: {answer}");
    }
    for bad in ["g\r\n", "-1\r\n", "fffffffffffffffff\r\n", "3\r\nabcX"] {
        let answer = raw(
            port,
            format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{bad}").as_bytes(),
        );
        assert!(answer.starts_with("HTTP/1.1 400"), "{bad}: {answer}");
    }
    // Who begins and does not go on keeps nobody from being answered.
    let slow: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let begun = ["", "GET / HT", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"][number % 3];
            stream.write_all(begun.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert!(ask(port, "POST /fine", "", "body").ends_with(r#""bytes":4}"#));
    drop(slow);
}

#[test]
fn hosts_belong_to_namespaces_and_no_other_may_have_their_requests() {
    let (world, port) = (World::new(), free_port());
    let config = format!(
        r#"{{"workload_types":["v8"],"http":{{"listen":"127.0.0.1:{port}","namespace":"www","hosts":{{"shop.example":"shop"}},"max_body_bytes":10}}}}"#
    );
    let _up = world.up(&["--config", &world.file("node.json", config)]);
    world.file("who.js", "(subject, payload) => subject");
    for namespace in ["www", "shop"] {
        world.nex(&["--namespace", namespace, "devrun", "who.js", "--trigger", "http:GET /who"]).expect(0);
    }
    assert!(ask(port, "GET /who", "", "").ends_with("nex.http.shop.GET.who\""));
    let www = raw(port, b"GET /who HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n");
    assert!(www.ends_with("nex.http.www.GET.who\""), "{www}");
    let stolen = ["--namespace", "thief", "devrun", "who.js", "--trigger", "subject:nex.http.shop.GET.other"];
    world.nex(&stolen).expect(3).says(&["not among those allowed"]);
    assert!(ask(port, "POST /who", "", "more than ten").starts_with("HTTP/1.1 413"));
    world.nex(&["node", "up", "--http", "nonsense"]).expect(1).says(&["http.listen"]);
}

#[test]
fn a_component_of_wasi_http_answers_requests_and_messages() {
    let (world, _up, port) = world();
    let component = world.file("web.wasm", guest::web_component());
    let routes = ["http:/orders/{id}", "http:GET /gone", "http:/{what}", "subject:fn.web"];
    let mut line = vec!["devrun", component.as_str()];
    line.extend(routes.iter().flat_map(|route| ["--trigger", route]));
    world.nex(&line).expect(0).says(&["webwasm"]);
    let made = ask(port, "POST /orders/4%202?a=b", "X-Asked: it\r\n", "tea");
    assert!(made.starts_with("HTTP/1.1 201 Created\r\n") && made.to_lowercase().contains("x-mine: guest\r\n"), "{made}");
    assert!(made.ends_with(&format!("20 shop.example:{port} /orders/4%202?a=b it tea")), "{made}");
    assert!(!made.to_lowercase().contains("nex-"), "{made}");
    assert!(ask(port, "GET /some", "", "").starts_with("HTTP/1.1 404"));
    for (path, why) in
        [("/never", "without a response"), ("/twice", "handle"), ("/head", "unreachable"), ("/broken", "gave up the body")]
    {
        let failed = ask(port, &format!("GET {path}"), "", "");
        assert!(failed.starts_with("HTTP/1.1 500") && failed.contains(why), "{path}: {failed}");
    }
    // By a message: the subject is the host, and there is no status.
    assert_eq!(world.nex(&["call", "fn.web", "hello"]).expect(0).stdout, b"22 fn.web /  hello");
    // 15 is that the request is denied: the node's own addresses are not for functions.
    let denied = ask(port, "GET /g", &format!("X-Asked: 127.0.0.1:{port}\r\n"), "");
    assert!(denied.starts_with("HTTP/1.1 200") && denied.ends_with(char::from(b'0' + 15)), "{denied}");
    let says_why = || {
        let logs = world.nex(&["logs", "--tail", "20"]).expect(0).text();
        logs.contains("wasi:http: ") && logs.contains("allow_private")
    };
    world.eventually("its log says why", says_why);
}

#[test]
fn what_a_component_asks_of_others_goes_through_the_node_with_the_trace_of_its_call() {
    let (world, port, outside) = (World::new(), free_port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let config = format!(
        r#"{{"workload_types":["wasm"],"http":{{"listen":"127.0.0.1:{port}"}},
            "host_services":{{"services":{{"http":{{"enabled":true,"config":{{"allow_private":true}}}}}}}}}}"#
    );
    let _up = world.up(&["--config", &world.file("node.json", config)]);
    let component = world.file("web.wasm", guest::web_component());
    world.nex(&["devrun", &component, "--trigger", "http:/p"]).expect(0);
    let address = outside.local_addr().unwrap();
    let heard = thread::spawn(move || {
        let (mut stream, _) = outside.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (mut request, mut piece) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"tea") {
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&piece[..read]);
        }
        stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnone").unwrap();
        String::from_utf8_lossy(&request).to_lowercase()
    });
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = ask(port, "POST /p", &format!("X-Asked: {address}\r\nTraceparent: {parent}\r\n"), "tea");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("4none"), "{answer}");
    let heard = heard.join().unwrap();
    assert!(heard.starts_with("post /p http/1.1\r\n") && heard.contains("user-agent: guest\r\n"), "{heard}");
    assert!(heard.contains(&format!("traceparent: {parent}\r\n")), "{heard}");
}
