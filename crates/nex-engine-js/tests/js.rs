//! JavaScript functions as an agent calls them: what they see, what they return, their limits, and what comes after a failure.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use common::{MEETING, call, failure, fixture, reply, started};
use nex_engine::{CallError, Function, Launch, StartError, Stream};
use nex_engine_js::{JsFunction, Restore, prepare};
use proptest::prelude::*;

async fn start(launch: Launch) -> Result<JsFunction, StartError> {
    nex_engine_js::start(launch, prepare()).await
}

/// A function with one worker and a time limit.
async fn with_time(source: &str, call_time: Duration) -> JsFunction {
    let mut fixture = fixture(source);
    fixture.launch.limits.call_time = call_time;
    fixture.launch.limits.concurrency = 1;
    start(fixture.launch).await.unwrap()
}

async fn invalid(source: impl AsRef<[u8]>) -> String {
    let error = start(fixture(source).launch).await.map(|_started| ()).unwrap_err();
    assert!(matches!(error, StartError::Invalid(_)), "{error}");
    error.to_string()
}

#[tokio::test]
async fn the_reply_is_the_json_of_what_is_returned_and_bytes_are_bytes() {
    for (source, expected) in [
        ("(subject, payload) => subject", r#""some.subject""#),
        ("(subject, payload) => ({ n: payload.length, is: payload instanceof Uint8Array })", r#"{"n":3,"is":true}"#),
        ("(subject, payload) => payload", "pay"),
        ("(subject, payload) => payload.buffer.slice(1)", "ay"),
        ("(subject, payload) => payload.subarray(2)", "y"),
        ("() => undefined", ""),
        ("() => null", "null"),
        ("() => 'é\\ud800'", "\"é\\ud800\""),
        ("function answer() { return 42 } answer", "42"),
        ("x = 1; const f = function () { return typeof this + x }; f", "\"object1\""),
        ("async (subject) => { await null; return subject }", r#""some.subject""#),
        ("() => Promise.resolve([1])", "[1]"),
        ("export default (subject) => subject", r#""some.subject""#),
        ("const two = await Promise.resolve(2);\nexport default async function () { return two }", "2"),
        ("import.meta; export default () => this === undefined", "true"),
        ("() => new Promise((done) => setTimeout(done, 5, 'late'))", r#""late""#),
        (
            "() => new Promise((done) => { const t = setTimeout(done, 1, 'no'); clearTimeout(t); setTimeout(done, 2, 'yes') })",
            r#""yes""#,
        ),
        ("() => btoa('hi') + atob('aGk=')", r#""aGk=hi""#),
        ("() => [...new TextEncoder().encode('hé')]", "[104,195,169]"),
        ("(s, p) => new TextDecoder().decode(p) + new TextDecoder().decode(new Uint8Array([0xff]).buffer)", "\"pay\u{fffd}\""),
        (
            "() => { try { new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array([255])) } catch (e) { return e.name } }",
            r#""TypeError""#,
        ),
        ("() => [env.Name, process.env.quoted, Object.isFrozen(env)]", r#"["väl","\"x\"",true]"#),
        ("const env = 1, console = 2; () => env + console", "3"),
    ] {
        assert_eq!(reply(source).await.as_deref(), Ok(expected), "{source}");
    }
}

#[tokio::test]
async fn typescript_runs_as_it_is_whether_it_is_called_so_or_not() {
    let generic = "const pick = <T>(all: T[]): T => all[0]!; (subject: string, payload: Uint8Array): number => pick<number>([payload.length])";
    let module =
        "type Reply = { n: number };\nexport default async (s: string, p: Uint8Array): Promise<Reply> => ({ n: p.length })";
    for (source, expected) in [(generic, "3"), (module, r#"{"n":3}"#), ("(s, p) => p.length", "3")] {
        for is_typescript in [true, false] {
            let mut fixture = fixture(source);
            fixture.launch.is_typescript = is_typescript;
            let function = start(fixture.launch).await.unwrap();
            assert_eq!(function.invoke(call("pay")).await, Ok(expected.into()), "{source}");
        }
    }
    // Two comparisons, if nobody says what it is.
    let comparisons = "const f = (x) => x; const number = 1; () => f<number>(3)";
    let mut said = fixture(comparisons);
    said.launch.is_typescript = true;
    assert_eq!(start(said.launch).await.unwrap().invoke(call("")).await, Ok("3".into()));
    assert_eq!(reply(comparisons).await.as_deref(), Ok("false"));
}

#[tokio::test]
async fn errors_of_typescript_name_its_own_lines_and_what_needs_code_is_refused() {
    let text =
        failure("interface A { x: number }\n(s: string, p: Uint8Array): A => {\n  throw new Error('no' as string) }").await;
    assert!(text.starts_with("Error: no at ") && text.contains("guest.ts:3:"), "{text}");
    let refused = invalid("const x: number = 1;\nenum Color { Red }\n() => Color.Red").await;
    assert!(refused.contains("TypeScript enum is not supported") && refused.contains("at guest.ts:2:1"), "{refused}");
    let nothing = invalid("const x: = 1; () => x").await;
    assert!(nothing.contains("SyntaxError") && nothing.contains("guest.js:1"), "{nothing}");
    let mut said = fixture("const x: = 1; () => x");
    said.launch.is_typescript = true;
    let error = start(said.launch).await.map(|_started| ()).unwrap_err().to_string();
    assert!(error.contains("guest.ts:1:"), "{error}");
}

#[tokio::test]
async fn every_call_sees_a_fresh_context_and_a_large_payload_survives() {
    let (function, _fixture) = started("let n = 0; globalThis.m ??= 0; (s, p) => p.length > 9 ? p : [++n, ++m]").await;
    for _ in 0..5 {
        assert_eq!(function.invoke(call("x")).await, Ok("[1,1]".into()));
    }
    let payload = Bytes::from((0..200_000_u32).map(|index| index.to_le_bytes()[0]).collect::<Vec<_>>());
    assert_eq!(function.invoke(call(payload.clone())).await, Ok(payload.into()));
}

#[tokio::test]
async fn calls_at_the_same_time_see_nothing_of_each_other() {
    let source = "let n = 0; Object.prototype.all = []; async (s, p) => { n++; ({}).all.push(p[0]); await null;
        if (p[0] % 7 === 0) throw new Error('on purpose'); if (p[0] % 11 === 0) return new Promise(() => {});
        return [n, ...({}).all] }";
    let (function, _fixture) = started(source).await;
    for _ in 0..10 {
        let replies = futures::future::join_all((0..100_u8).map(|number| function.invoke(call(vec![number])))).await;
        for (number, reply) in (0..100_u8).zip(replies) {
            match reply {
                Ok(reply) => assert_eq!(reply.payload, format!("[1,{number}]")),
                Err(error) => assert!(number % 7 == 0 || number % 11 == 0, "{number}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_rejection_that_nobody_handles_is_logged_and_one_that_somebody_does_is_not() {
    let source = "const fail = async (why) => { throw new TypeError(why) };
        fail('at the top');
        async (s, p) => {
            fail('forgotten'); fail('caught').catch(() => {}); Promise.reject('a text');
            const late = fail('awaited later'); await null; try { await late } catch {}
            setTimeout(() => fail('of a timer'), 1); await new Promise((done) => setTimeout(done, 5));
            console.error('end');
            return fail('returned');
        }";
    let (function, mut fixture) = started(source).await;
    for _ in 0..2 {
        assert!(function.invoke(call("")).await.unwrap_err().to_string().starts_with("TypeError: returned at fail"));
    }
    let (mut told, mut ends) = (Vec::new(), 0);
    while ends < 2 || told.len() < 7 {
        let line = fixture.lines.recv().await.unwrap();
        assert_eq!(line.stream, Stream::Stderr);
        if line.text == "end" { ends += 1 } else { told.push(line.text) }
    }
    let told: Vec<_> = told.iter().map(|line| line.split(" at fail").next().unwrap()).collect();
    let of_a_call = ["TypeError: forgotten", "a text", "TypeError: of a timer"];
    let expected: Vec<_> = ["TypeError: at the top"]
        .iter()
        .chain(&of_a_call)
        .chain(&of_a_call)
        .map(|why| format!("Uncaught (in promise) {why}"))
        .collect();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn what_a_script_prints_becomes_lines() {
    let source = "console.log('top'); () => { console.log('a', 1, {b: [2]}, null, undefined, Symbol('s'));
        console.error('two\\nlines'); console.warn('w\\ud800'); queueMicrotask(() => console.info('later')); return 1 }";
    let (function, mut fixture) = started(source).await;
    assert_eq!(function.invoke(call("")).await, Ok("1".into()));
    let (mut lines, mut tops) = (Vec::new(), 0);
    while lines.len() < 5 {
        let line = tokio::time::timeout(Duration::from_secs(5), fixture.lines.recv()).await.unwrap().unwrap();
        // Said once for each worker.
        if line.text == "top" { tops += 1 } else { lines.push((line.stream == Stream::Stdout, line.text)) }
    }
    assert_eq!(tops, 1);
    let texts = [
        (true, "a 1 {\"b\":[2]} null undefined Symbol(s)"),
        (false, "two"),
        (false, "lines"),
        (false, "w\u{fffd}"),
        (true, "later"),
    ];
    assert_eq!(lines, texts.map(|(out, text)| (out, text.to_owned())));
}

#[tokio::test]
async fn a_slower_restore_is_told_and_serves_as_well() {
    let mut fixture = fixture("let n = 0; () => ++n");
    let function = nex_engine_js::start(fixture.launch.clone(), Restore::ForgetWritten).await.unwrap();
    let line = fixture.lines.recv().await.unwrap();
    assert!(line.text.starts_with("JavaScript: after each call, written pages are dropped"), "{}", line.text);
    for _ in 0..5 {
        assert_eq!(function.invoke(call("x")).await, Ok("1".into()));
    }
}

#[tokio::test]
async fn what_json_cannot_carry_is_refused_with_what_to_return_instead() {
    for (source, expected) in [
        ("() => 10n", "function returned a BigInt, which JSON does not have: return String(value) or Number(value)"),
        (
            "() => new Map([[1, 2]])",
            "function returned a Map, which JSON does not have: return Object.fromEntries(map) or [...map]",
        ),
        ("async () => new Set()", "function returned a Set, which JSON does not have: return [...set]"),
        ("() => () => 1", "function returned a function, which cannot be sent: return a value, or call it"),
        ("() => Symbol('s')", "function returned a symbol, which cannot be sent: return its description"),
    ] {
        assert_eq!(failure(source).await, expected, "{source}");
    }
    assert_eq!(
        reply("() => { BigInt.prototype.toJSON = function () { return String(this) }; return 10n }").await.as_deref(),
        Ok("\"10\"")
    );
}

#[tokio::test]
async fn a_payload_of_a_mebibyte_is_decoded_and_spread_into_an_array() {
    let payload = Bytes::from(vec![b'x'; 1 << 20]);
    for source in [
        "(s, p) => new TextDecoder().decode(p).length",
        "(s, p) => new Uint8Array([...p]).length",
        "(s, p) => Array.from(p, (byte) => String.fromCharCode(byte)).join('').length",
        "(s, p) => new TextEncoder().encode(new TextDecoder().decode(p)).length",
    ] {
        let mut fixture = fixture(source);
        fixture.launch.limits.memory_bytes = 128 << 20;
        let function = start(fixture.launch.clone()).await.unwrap();
        assert_eq!(function.invoke(call(payload.clone())).await, Ok("1048576".into()), "{source}");
    }
    // The engine passes 65535 arguments; the error tells what to do instead.
    let (function, _fixture) = started("(s, p) => String.fromCharCode(...p).length").await;
    assert_eq!(function.invoke(call(payload.slice(..65_535))).await, Ok("65535".into()));
    let error = function.invoke(call(payload)).await.unwrap_err().to_string();
    assert!(error.contains("only 65535 allowed") && error.contains("new TextDecoder().decode(bytes)"), "{error}");
}

#[tokio::test]
async fn an_error_is_reported_with_its_position_and_the_next_call_is_served() {
    for (source, expected) in [
        ("() => { throw new TypeError('bad') }", "TypeError: bad at <anonymous> (guest.js:1:"),
        ("() => {\n  nothing.there }", "ReferenceError: nothing is not defined at <anonymous> (guest.js:2:"),
        ("() => { throw 'plain words' }", "plain words"),
        ("() => { throw { toString() { throw 1 } } }", "function threw a value without a text"),
        ("async () => { await null; throw new Error('later') }", "Error: later"),
        ("() => new Promise(() => {})", "nothing can settle"),
        ("() => ({ n: 10n })", "TypeError"),
        ("function f() { return f() + 1 } f", "RangeError: Maximum call stack size exceeded"),
        ("() => new Promise(() => setTimeout(() => { throw new Error('timer') }, 1))", "Error: timer"),
        ("() => { const a = {}; a.a = a; return a }", "TypeError: circular reference"),
        ("(s, p) => { Object.defineProperty(p, 'length', {value: 'x'}); throw p.length }", "x"),
    ] {
        let text = failure(source).await;
        assert!(text.contains(expected), "{source}: {text}");
    }
    let (function, _fixture) = started("(s, p) => { if (p.length) throw new Error('no'); return 'yes' }").await;
    for _ in 0..3 {
        assert!(function.invoke(call("x")).await.is_err());
        assert_eq!(function.invoke(call("")).await, Ok("\"yes\"".into()));
    }
}

#[tokio::test]
async fn a_runaway_is_stopped_at_its_limit_and_the_next_call_is_served() {
    let limit = Duration::from_millis(300);
    for runaway in [
        "for (;;) {}",
        "for (;;) { try { for (;;) {} } catch { } }",
        "return Promise.resolve().then(() => { for (;;) {} })",
        "let more = 1; const again = () => { if (more) queueMicrotask(again) }; again(); return new Promise(() => {})",
        "const again = () => { queueMicrotask(again) }; again()",
        "return (async () => { try { await null; for (;;) {} } finally { for (;;) {} } })()",
        "return new Promise(() => { const again = () => setTimeout(again, 1); again() })",
        "return new Promise((done) => setTimeout(done, 3600000))",
        "return { toJSON() { for (;;) {} } }",
        "throw { toString() { for (;;) {} } }",
        "return /(a+)+$/.test('a'.repeat(40) + 'b')",
        "return hostServices.kv.get('slow')",
        "try { hostServices.kv.get('slow') } catch { for (;;) {} }",
    ] {
        let function = with_time(&format!("(s, p) => {{ if (p.length === 0) return 'ok'; {runaway} }}"), limit).await;
        assert_eq!(function.invoke(call("x")).await, Err(CallError::Timeout(limit)), "{runaway}");
        // There is one worker, so this call is served only if the runaway was interrupted.
        assert_eq!(function.invoke(call("")).await, Ok("\"ok\"".into()), "after {runaway}");
    }
}

#[tokio::test]
async fn a_runaway_that_leaves_no_memory_for_the_error_that_stops_it_is_stopped() {
    let source = "async (s, p) => { if (p.length === 0) return 'ok'; const big = new Uint8Array(3 << 20);
        try { const all = []; for (;;) all.push({ all, f() {} }) } catch { }
        try { new Map(Array.from({ length: 300 }, (_, i) => [i, 's' + i])) } catch { }
        for (;;) { try { for (;;) {} } finally { continue } } }";
    let mut fixture = fixture(source);
    fixture.launch.limits.call_time = Duration::from_millis(500);
    fixture.launch.limits.memory_bytes = 4 << 20;
    fixture.launch.limits.concurrency = 1;
    let function = start(fixture.launch).await.unwrap();
    for _ in 0..3 {
        assert_eq!(function.invoke(call("x")).await, Err(CallError::Timeout(Duration::from_millis(500))));
        assert_eq!(function.invoke(call("")).await, Ok("\"ok\"".into()));
    }
}

#[tokio::test]
async fn memory_over_the_limit_is_recognised_and_the_next_call_is_served() {
    for hog in [
        "const all = []; for (;;) all.push(new Array(1000).fill('x'))",
        "const all = []; for (let n = 0;; n++) all.push({ n })",
        "let text = 'x'; for (;;) text = text.repeat(2)",
        "return new Uint8Array(1 << 30)",
        "return new ArrayBuffer(1 << 30)",
        "return 'x'.repeat(1 << 28)",
        "const all = new Map(); for (let n = 0;; n++) all.set(n, 'v' + n)",
        "return (async () => { await null; const all = []; for (;;) all.push([n++]) })()",
    ] {
        let (function, _fixture) = started(&format!("let n = 0; (s, p) => {{ if (p.length === 0) return 'ok'; {hog} }}")).await;
        for _ in 0..3 {
            assert_eq!(function.invoke(call("x")).await, Err(CallError::OutOfMemory(32 << 20)), "{hog}");
            assert_eq!(function.invoke(call("")).await, Ok("\"ok\"".into()), "after {hog}");
        }
    }
}

#[tokio::test]
async fn a_reply_over_the_limit_is_an_error_with_its_size() {
    for (source, actual) in [("() => 'x'.repeat(300000)", 300_002), ("() => new Uint8Array(300000)", 300_000)] {
        assert_eq!(reply(source).await, Err(CallError::ReplyTooLarge { actual, limit: 256 * 1024 }));
    }
}

#[tokio::test]
async fn calls_run_side_by_side_up_to_the_limit() {
    let mut fixture = fixture("(s, p) => hostServices.messaging.request('meet', p)");
    fixture.launch.limits.concurrency = MEETING;
    let function = start(fixture.launch.clone()).await.unwrap();
    // Each call waits at the host for as many others as the limit allows.
    let replies = futures::future::join_all((0..16_u8).map(|index| function.invoke(call(vec![index])))).await;
    assert!(replies.iter().zip(0..).all(|(reply, index)| reply == &Ok(vec![index].into())), "{replies:?}");
    assert_eq!(fixture.host.max_waiting.load(Ordering::SeqCst), MEETING);
}

#[tokio::test]
async fn a_source_without_a_function_is_refused_with_the_reason() {
    let prefix = "failed to validate workload: failed to compile source for execution: ";
    for (source, expected) in [
        ("() => {\n  let x = ;\n}", "SyntaxError: unexpected token in expression: ';' at guest.js:2:"),
        ("export default () => {\n  let x = ;\n}", "guest.js:2:"),
        ("42", "completion value is no function"),
        ("", "completion value is no function"),
        ("export const x = 1", "no function as its default export"),
        ("import x from 'elsewhere'; export default () => x", "elsewhere"),
        ("throw new Error('at the top')", "Error: at the top"),
    ] {
        let text = invalid(source).await;
        assert!(text.starts_with(prefix) && text.contains(expected), "{source}: {text}");
    }
    assert!(invalid(b"\0asm").await.contains("NUL"));
    assert!(invalid(b"\xff\xfe").await.contains("not a text"));
    assert!(invalid(vec![b' '; 5 << 20]).await.contains("exceeds maximum of 4194304 bytes"));
    let mut endless = fixture("for (;;) {}");
    endless.launch.limits.call_time = Duration::from_millis(50);
    assert!(start(endless.launch).await.unwrap_err().to_string().contains("longer than its limit"));
}

#[tokio::test]
async fn a_dropped_function_ends_its_threads() {
    let (function, mut fixture) = started("() => { console.log('busy'); for (;;) {} }").await;
    let function = Arc::new(function);
    let run = Arc::clone(&function);
    {
        let busy = async { run.invoke(call("")).await };
        tokio::select! {
            _ = busy => panic!("it never returns"),
            line = fixture.lines.recv() => assert_eq!(line.unwrap().text, "busy"),
        }
    }
    drop((run, function));
    // The workers hold the output; when all are gone, and the launch too, the lines end.
    drop(fixture.launch);
    while tokio::time::timeout(Duration::from_secs(5), fixture.lines.recv()).await.unwrap().is_some() {}
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn garbage_never_panics(source in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[(){}\\[\\];=>`'\"/*a-z0-9 .,]{0,80}".prop_map(String::into_bytes),
        "(export|import|default|async|function|=>|\\(|\\)|\\{|\\}|x| |;|await|class|`|\\$){0,20}".prop_map(String::into_bytes),
    ]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut fixture = fixture(&source);
            fixture.launch.limits.call_time = Duration::from_millis(200);
            if let Ok(function) = start(fixture.launch).await {
                let _reply = function.invoke(call("hello")).await;
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn out_of_memory_is_recognised_wherever_it_happens(memory_bytes in 1_u64..1_500_000, which in 0..6_usize) {
        let hog = [
            "const all = []; for (let n = 0;; n++) all.push({ n, f() {} })",
            "const all = new Map(); for (let n = 0;; n++) all.set('k' + n, [n])",
            "return (async () => { const all = []; for (;;) { all.push(new Promise(() => {})); await null } })()",
            "class A { #x = new Uint8Array(100) } const all = []; for (;;) all.push(new A())",
            "let f = () => 0; for (;;) { const g = f; f = () => g }",
            "return eval('[' + '{a:1,b:/x/},'.repeat(1e6) + ']')",
        ][which];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut fixture = fixture(format!("(s, p) => {{ {hog} }}"));
            fixture.launch.limits.memory_bytes = memory_bytes;
            match start(fixture.launch).await {
                Ok(function) => {
                    let error = function.invoke(call("")).await.unwrap_err();
                    // QuickJS does not report a job that it could not allocate; only its promise stays pending.
                    let lost = which == 2 && error.to_string().contains("nothing can settle");
                    assert!(lost || error == CallError::OutOfMemory(memory_bytes), "{error:?}");
                }
                Err(error) => assert!(error.to_string().contains("memory limit"), "{error}"),
            }
        });
    }
}
