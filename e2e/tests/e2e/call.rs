//! `nex call`: payloads in, bytes out, and what goes wrong.

use futures::StreamExt as _;
use nex_testkit::guest;

use crate::world::World;

#[test]
fn a_payload_is_an_argument_a_file_or_what_is_piped_in() {
    let world = World::new();
    let _up = world.up(&[]);
    let module = world.file("echo.wasm", guest::assemble(guest::ECHO_WAT));
    world.nex(&["devrun", &module, "--trigger_subject", "fn.echo", "--trigger_subject", "fn.more.*"]).expect(0);
    assert_eq!(world.nex(&["call", "fn.echo", "hello"]).expect(0).stdout, b"hello");
    assert_eq!(world.nex(&["call", "fn.more.x", "-v"]).expect(0).stdout, b"-v");
    assert_eq!(world.nex(&["call", "fn.echo"]).expect(0).stdout, b"", "nothing is piped in");
    // The name of a function calls it, by a trigger that is no pattern.
    assert_eq!(world.nex(&["call", "echowasm", "by name"]).expect(0).stdout, b"by name");

    // Every byte there is, more than one pipe holds, no text, and no line end of ours behind it.
    let bytes: Vec<u8> = (0..=255_u8).cycle().take(300_001).collect();
    let file = format!("@{}", world.file("payload.bin", &bytes));
    assert!(world.nex(&["call", "fn.echo", &file]).expect(0).stdout == bytes, "a file, byte by byte");
    assert!(world.nex_reading(&["call", "fn.echo"], &bytes).expect(0).stdout == bytes, "standard input, byte by byte");
    assert_eq!(world.nex_reading(&["call", "fn.echo", "-"], b"\0\xff\n").expect(0).stdout, b"\0\xff\n");
    let json = world.nex(&["call", "fn.echo", r#"{"a": 1}"#, "--json"]).expect(0).json();
    assert_eq!((&json["reply"]["a"], &json["subject"]), (&1.into(), &"fn.echo".into()));

    world.nex(&["call", "fn.echo", "@/no/such/file"]).expect(1).says(&["/no/such/file", "next: check the path"]);
    let large = format!("@{}", world.file("large.bin", vec![0; 9 * 1024 * 1024]));
    world.nex(&["call", "fn.echo", &large]).expect(2).says(&["larger than the 8388608 bytes the NATS server takes"]);
    world.nex(&["call", "fn.*", "x"]).expect(2).says(&["leave out blanks and wildcards"]);
}

#[test]
fn the_echo_that_ships_takes_large_payloads() {
    let world = World::new();
    let _up = world.up(&[]);
    let script = world.file("echo.js", guest::ECHO_JS);
    world.nex(&["devrun", &script]).expect(0);
    let text = "é".repeat(50_000);
    let file = format!("@{}", world.file("large.txt", &text));
    let reply = world.nex(&["call", "echojs", &file]).expect(0).json();
    assert!(reply["payload"] == text, "{} bytes", reply["payload"].as_str().unwrap_or_default().len());
}

#[test]
fn a_call_that_fails_is_late_or_finds_nobody_says_so() {
    let world = World::new();
    let _up = world.up(&[]);
    let failing = world.file("failing.js", guest::FAILING_JS);
    let looping = world.file("looping.js", guest::LOOPING_JS);
    let module = world.file("failing.wasm", guest::assemble(guest::FAILING_WAT));
    world.nex(&["devrun", &failing]).expect(0);
    world.nex(&["devrun", &module]).expect(0);
    world.nex(&["devrun", &looping, "--call-timeout", "500ms"]).expect(0);
    world.nex(&["call", "failingjs", "x"]).expect(1).says(&["error: the call failed: ", "it failed on purpose"]);
    world.nex(&["call", "failingwasm", "x"]).expect(1).says(&["error: the call failed: ", "exited with status 3"]);
    // Its own bound answers before ours.
    world.nex(&["call", "loopingjs", "x"]).expect(1).says(&["the call failed: ", "code 504"]);
    let late = world.nex(&["call", "loopingjs", "x", "--timeout", "100ms"]).expect(5);
    late.says(&["no answer on 'loopingjs' within 100ms", "next: "]);
    let nobody = world.nex(&["call", "nobody.there", "x", "--timeout", "500ms"]).expect(1);
    nobody.says(&["nothing listens on 'nobody.there'", "nex ps"]);
    // One that fails harms no other.
    world.nex(&["call", "failingjs", "x"]).expect(1).says(&["it failed on purpose"]);
}

#[test]
fn headers_go_there_and_come_back() {
    let world = World::new();
    let _up = world.up(&[]);
    let client = world.client();
    let mut requests = world.block_on(client.subscribe("svc.headers")).unwrap();
    world.block_on(client.flush()).unwrap();
    for more in [&["-i"][..], &["--json"]] {
        let call = world.start(&[&["call", "svc.headers", "x", "-H", "Trace: a b", "--header", "Tenant:1"], more].concat());
        let request = world.block_on(requests.next()).unwrap();
        let sent = request.headers.unwrap();
        assert_eq!((sent.get("Trace").unwrap().as_str(), sent.get("Tenant").unwrap().as_str()), ("a b", "1"));
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Answered-By", "me\u{1b}[31m");
        let bytes = if more == ["-i"] { b"hi".to_vec() } else { vec![0xff, 0] };
        let reply = client.publish_with_headers(request.reply.unwrap(), headers, bytes.into());
        world.block_on(reply).unwrap();
        let ended = call.ends().expect(0);
        if more == ["-i"] {
            assert_eq!(ended.text().trim_end(), "hi", "headers go to standard error");
            ended.says(&["Answered-By: me", "2 bytes in "]).says_not("\u{1b}");
        } else {
            let json = ended.json();
            assert_eq!((&json["reply_base64"], &json["bytes"]), (&"/wA=".into(), &2.into()));
            assert!(
                json["headers"]["Answered-By"][0].as_str().unwrap().starts_with("me") && json["took_ms"].as_f64().unwrap() > 0.0
            );
        }
    }
    world.nex(&["call", "svc.headers", "x", "-H", "no header"]).expect(2).says(&["expected Name: value"]);
}
