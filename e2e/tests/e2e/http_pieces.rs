//! Responses that come piece by piece, from functions that their agents answer for and such that the node does.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http::world;

/// One event, and another one when a message has come; `?much` instead writes until nobody takes it.
const EVENTS: &str = "const [encode, wait] = [(text) => new TextEncoder().encode(text), (ms) => new Promise((done) => setTimeout(done, ms))];
export default {
    async fetch(request) {
        const url = new URL(request.url);
        if (url.protocol === 'nats:') { hostServices.kv.set(await request.text(), encode('yes')); return new Response('set'); }
        const has = (key) => hostServices.kv.keys().includes(key);
        let count = 0;
        const body = new ReadableStream({ async pull(controller) {
            if (url.search === '?much') { hostServices.kv.set('taken', encode(String(++count))); return controller.enqueue(new Uint8Array(60000)); }
            if (count === 1) while (!has('go')) await wait(20);
            if (count === 2 && url.search === '?broken') throw new Error('it broke');
            if (count === 2) return controller.close();
            controller.enqueue(encode(`data: ${++count}\\n\\n`));
        } }, { highWaterMark: 0 });
        return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
    },
};";

/// Begins, and never ends.
const ENDLESS: &str = "export default { fetch: () => new Response(new ReadableStream({
    start: (controller) => controller.enqueue(new TextEncoder().encode('data: 1\\n\\n')),
    pull: () => new Promise(() => setTimeout(() => {}, 3600000)),
})) };";

/// Reads until this has come; what came is given.
fn until(stream: &mut TcpStream, expected: &str) -> String {
    let (mut read, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if text.contains(expected) {
            return text;
        }
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "it ends with {text}");
        read.extend_from_slice(&piece[..count]);
    }
}

fn asked(port: u16, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

#[test]
fn events_arrive_one_by_one_whoever_sends_them() {
    let (world, _up, port) = world();
    let file = world.file("events.mjs", EVENTS);
    // With a trigger that keeps its messages, its calls are relayed by the node; without one its agent answers.
    for (name, more) in [("direct", &[][..]), ("relayed", &["--trigger", "every:1h"])] {
        let (route, set) = (format!("http:GET /{name}"), format!("subject:set.{name}"));
        let mut line = vec!["devrun", &file, "--name", name, "--call-timeout", "20s", "--trigger", &route, "--trigger", &set];
        line.extend(more);
        world.nex(&line).expect(0);
        let mut whole = asked(port, &format!("/{name}"));
        let mut broken = asked(port, &format!("/{name}?broken"));
        for stream in [&mut whole, &mut broken] {
            let begun = until(stream, "data: 1\n\n");
            assert!(begun.starts_with("HTTP/1.1 200 OK") && begun.contains("text/event-stream"), "{begun}");
            assert!(!begun.contains("data: 2"), "it was not made yet: {begun}");
        }
        // Who goes away ends the call.
        let gone = asked(port, &format!("/{name}?much"));
        world.nex(&["call", &format!("set.{name}"), "go"]).expect(0);
        assert!(until(&mut whole, "0\r\n\r\n").contains("data: 2\n\n"));
        until(&mut broken, "data: 2\n\n");
        let mut rest = Vec::new();
        drop(broken.read_to_end(&mut rest));
        assert!(!String::from_utf8_lossy(&rest).contains("0\r\n\r\n"), "a part was taken for the whole");
        drop(gone);
        let says_why = || world.nex(&["logs", "--tail", "20"]).expect(0).text().contains("it broke");
        world.eventually("what broke is told", says_why);
        world.nex(&["stop", name]).expect(0);
    }
}

#[test]
fn an_agent_that_dies_in_the_middle_of_a_response_breaks_it_off() {
    let (world, _up, port) = world();
    let file = world.file("events.mjs", ENDLESS);
    for (name, more) in [("direct", &[][..]), ("relayed", &["--trigger", "every:1h"])] {
        let route = format!("http:GET /{name}");
        let mut line = vec!["devrun", &file, "--name", name, "--call-timeout", "60s", "--trigger", &route];
        line.extend(more);
        world.nex(&line).expect(0);
        let mut stream = asked(port, &format!("/{name}"));
        until(&mut stream, "data: 1\n\n");
        let agents = world.agents();
        assert!(!agents.is_empty());
        for pid in agents {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest).map_err(|error| error.kind());
        assert!(!matches!(end, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "it is waited for in vain: {end:?}");
        assert!(!String::from_utf8_lossy(&rest).contains("0\r\n\r\n"), "a part was taken for the whole");
        world.nex(&["stop", name]).expect(0);
    }
}
