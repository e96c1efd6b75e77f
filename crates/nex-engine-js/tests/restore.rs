//! What a call leaves behind: nothing. After every call the engine's memory is, byte for byte, what it was when the script was loaded.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::Duration;

use common::{call, fixture};
use nex_engine::{CallError, StartError};
use nex_engine_js::{Isolate, Restore, STACK_BYTES, prepare};
use proptest::prelude::*;
use tokio::runtime::Runtime;

/// Every way there is; the second works on any kernel.
fn ways() -> HashSet<Restore> {
    HashSet::from([prepare(), Restore::ForgetWritten])
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

fn loaded(source: &str, way: Restore) -> Isolate {
    load(source, way).unwrap()
}

fn load(source: &str, way: Restore) -> Result<Isolate, StartError> {
    load_within(source, way, Duration::from_millis(200))
}

fn load_within(source: &str, way: Restore, call_time: Duration) -> Result<Isolate, StartError> {
    let mut fixture = fixture(source);
    fixture.launch.limits.memory_bytes = 4 << 20;
    fixture.launch.limits.call_time = call_time;
    Isolate::load(fixture.launch, way, runtime().handle().clone())
}

/// Runs a test where an isolate may be: on a thread with its stack.
fn on_its_thread(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(test).unwrap();
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Where two memories differ first.
fn difference(image: &[u8], now: &[u8]) -> Option<usize> {
    if image == now { None } else { image.iter().zip(now).position(|(was, is)| was != is) }
}

/// Code of a function's body; together all that a script can leave behind.
const TRACES: &[&str] = &[
    "globalThis.left = (globalThis.left ?? 0) + 1; if (left !== 1) throw 'left'",
    "Object.prototype.polluted = 1; Array.prototype.map = null; String.prototype.at = () => 'x'",
    "JSON.stringify = () => 'mine'; Math.random = () => 4; globalThis.Promise = class {}",
    "state.n++; state.all.push(new Array(50).fill(state.n)); if (state.n !== 1) throw 'state'",
    "const g = (function* () { for (let i = 0; ; i++) yield { i, state } })(); for (let i = 0; i < 20; i++) g.next(); state.g = g",
    "state.f = ((x) => () => x++)(p); state.f()",
    "state.later = (async () => { await null; state.n = 9; await new Promise(() => {}) })()",
    "setTimeout(() => { state.n = 7 }, 0); setTimeout(() => {}, 1e9)",
    "queueMicrotask(() => { state.micro = {} })",
    "try { null.x } catch (e) { state.e = e }",
    "throw new RangeError('on purpose ' + p.length)",
    "state.r = /(a+)+b/g; state.r.exec('xaab'); 'abcabc'.replace(/(?<l>[a-c])/g, (m) => m.toUpperCase())",
    "state.p = new Proxy(state, { get: (t, k) => Reflect.get(t, k), set: () => true }); state.p.x = 1",
    "state.t = new Float64Array(3000).map((_, i) => i); new Uint8Array(state.t.buffer).reverse()",
    "const b = new ArrayBuffer(64, { maxByteLength: 4096 }); b.resize(2048); state.b = b.transfer()",
    "state.w = new WeakRef({}); state.m = new WeakMap([[state, p]]); new FinalizationRegistry(() => {}).register({}, 1)",
    "state.map = new Map(Array.from({ length: 300 }, (_, i) => [i, 's' + i])); state.set = new Set(state.map.keys())",
    "class A { #x = 1; static all = []; get x() { return this.#x } } A.all.push(new A()); state.A = A",
    "const s = Symbol.for('k' + Math.random()); state[s] = s; state['p' + Math.random()] = 1",
    "delete globalThis.hostServices; delete globalThis.console; Object.freeze(state)",
    "console.log('a line', state); console.error('another')",
    "hostServices.kv.set('k', p); state.v = hostServices.kv.get('k'); state.h = hostServices.http.get('http://h')",
    "crypto.getRandomValues(new Uint8Array(100)); state.id = crypto.randomUUID(); state.now = performance.now()",
    "state.text = 'x'.repeat(100000) + Math.random(); state.json = JSON.parse(JSON.stringify({ a: [1, { b: state.text }] }))",
    "const f = (n) => n === 0 ? 0 : 1 + f(n - 1); state.deep = f(500)",
    "const f = () => f() + 1; f()",
    "const all = []; for (;;) all.push({ all, f() {} })",
    "let s = 'x'; for (;;) s += s",
    "state.big = new Uint8Array(3 << 20).fill(7)",
    "eval('globalThis.evaluated = () => state'); new Function('state.made = 1')",
    "const ring = { ring: null }; ring.ring = ring; for (let i = 0; i < 2000; i++) ({ a: { b: ring } }).a.c = {}",
    "state.iterators = [state.all.values(), new Map().entries(), 'text'[Symbol.iterator](), /x/g[Symbol.matchAll]('xx')]",
    "state.date = new Date(); state.intl = state.date.toLocaleString(); state.big = 2n ** 900n",
    "return new Uint8Array(5000)",
    "return { state, subject: s }",
    "return undefined",
    "await null; await Promise.all([1, Promise.resolve(2)])",
    "await new Promise((done) => setTimeout(done, 1))",
    "await new Promise(() => {})",
];
/// Costs the whole of a call's time, so it is drawn rarely.
const ENDLESS: &[&str] = &["for (;;) {}", "for (;;) await null", "for (;;) { try { for (;;) {} } finally { continue } }"];

fn traces() -> impl Strategy<Value = Vec<&'static str>> {
    let trace = prop_oneof![40 => prop::sample::select(TRACES), 1 => prop::sample::select(ENDLESS)];
    prop::collection::vec(trace, 1..6)
}

/// Each trace in a block of its own; some failures are caught, so that what follows runs, too.
fn source(top: &[&str], body: &[&str], catch: bool) -> String {
    let at_top = top.iter().filter(|trace| !["await", "for (;;)", "state.n"].iter().any(|word| trace.contains(word)));
    let top: String =
        at_top.map(|one| format!("try {{ (function (s, p) {{ {{ {one} }} }})('', new Uint8Array(8)) }} catch {{}}\n")).collect();
    let caught = |one: &&str| format!("try {{ {one} }} catch {{ state.caught = 1 }}\n");
    let body: String = body.iter().map(|one| if catch { caught(one) } else { format!("{{ {one} }}\n") }).collect();
    format!(
        "const state = {{ n: 0, all: [] }};\n{top}globalThis.left = 0; async function handler(s, p) {{ {body} return 'end' }}\nhandler"
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    fn check_generated_scripts(body in traces(), other in traces(), catch in any::<bool>(), scan in any::<bool>()) {
        let way = if scan { prepare() } else { Restore::ForgetWritten };
        let source = source(&other, &body, catch);
        let loaded = load(&source, way);
        // What the top level left may be too much for its memory.
        prop_assume!(loaded.is_ok());
        let mut isolate = loaded.unwrap();
        let image = isolate.memory().to_vec();
        for payload in [0, 10, 3000, 200_000, 1] {
            let first = isolate.call(&call(vec![1; payload]));
            isolate.restore().unwrap();
            prop_assert_eq!(difference(&image, isolate.memory()), None, "after {:?} of\n{}", first, source);
        }
    }
}

#[test]
fn after_every_call_the_memory_is_the_image() {
    on_its_thread(check_generated_scripts);
}

#[test]
fn what_one_call_left_no_other_finds() {
    let source = "let n = 0; globalThis.m = 0; const seen = [];
        (s, p) => { seen.push(p); Object.prototype.evil ??= 0; Object.prototype.evil++; return [++n, ++m, seen.length, ({}).evil] }";
    for way in ways() {
        let mut isolate = loaded(source, way);
        // More often than pages are given back.
        for _ in 0..600 {
            assert_eq!(isolate.call(&call("x")), Ok("[1,1,1,1]".into()), "{way}");
            isolate.restore().unwrap();
        }
    }
}

#[test]
fn without_the_restore_a_call_would_find_it() {
    let isolate = loaded("let n = 0; () => ++n", prepare());
    assert_eq!([isolate.call(&call("")), isolate.call(&call(""))], [Ok("1".into()), Ok("2".into())]);
}

#[test]
fn a_call_after_a_failed_one_is_served_from_the_image() {
    on_its_thread(check_failures);
}

fn check_failures() {
    let bad = [
        "throw new Error('x')",
        "for (;;) {}",
        "const a = []; for (;;) a.push({ a })",
        "const f = () => f() + 1; return f()",
        "return new Promise(() => {})",
        "setTimeout(() => {}, 1e9); return new Promise(() => {})",
        "return 1n",
    ];
    for way in ways() {
        for bad in bad {
            let mut isolate = loaded(&format!("let n = 0; (s, p) => {{ n++; if (p.length === 0) return n; {bad} }}"), way);
            let image = isolate.memory().to_vec();
            for _ in 0..3 {
                assert!(isolate.call(&call("x")).is_err(), "{bad}");
                isolate.restore().unwrap();
                assert_eq!(difference(&image, isolate.memory()), None, "{bad}");
                assert_eq!(isolate.call(&call("")), Ok("1".into()), "after {bad}");
                isolate.restore().unwrap();
            }
        }
    }
}

#[test]
fn no_random_value_comes_twice_and_the_clock_goes_on() {
    let source = "const random = Math.random; (s, p) => [Math.random(), random(), crypto.randomUUID(),
        [...crypto.getRandomValues(new Uint8Array(16))].join(), performance.timeOrigin + performance.now()].join('\\n')";
    let mut isolate = loaded(source, prepare());
    let (mut seen, mut clock) = (HashSet::new(), 0.0_f64);
    for _ in 0..300 {
        let reply: String = serde_json::from_slice(&isolate.call(&call("")).unwrap().payload).unwrap();
        let (random, now) = reply.rsplit_once('\n').unwrap();
        for value in random.lines() {
            assert!(seen.insert(value.to_owned()), "{value} came twice");
        }
        let now: f64 = now.parse().unwrap();
        assert!(now >= clock, "{now} after {clock}");
        clock = now;
        isolate.restore().unwrap();
    }
}

#[test]
fn what_must_differ_from_call_to_call_is_refused_at_the_top_level() {
    for (source, what) in [
        ("const value = hostServices.kv.get('key'); () => value", "host services are not available"),
        ("hostServices.http.get('http://h'); () => 1", "host services are not available"),
        ("const id = crypto.randomUUID(); () => id", "crypto's random values are not available"),
        ("(async () => { await null; globalThis.key = crypto.getRandomValues(new Uint8Array(2)) })(); () => 1", "crypto's"),
        ("await null; hostServices.kv.keys();\nexport default () => 1", "host services are not available"),
    ] {
        let loaded = Isolate::load(fixture(source).launch, prepare(), runtime().handle().clone());
        match loaded.map_err(|error| error.to_string()) {
            Err(text) => assert!(text.contains(what) && text.contains("use them in the function"), "{source}: {text}"),
            // Nobody waited for its promise; but it was refused, too.
            Ok(isolate) => assert!(source.contains("async () =>") && isolate.call(&call("")).is_ok(), "{source}"),
        }
    }
}

#[test]
fn memory_that_one_call_needs_is_there_for_the_next() {
    // Time is not what is tested, and a busy machine needs more of it.
    let patient = |source| load_within(source, prepare(), Duration::from_secs(20)).unwrap();
    let mut isolate = patient("(s, p) => new Uint8Array(3 << 20).fill(1).length");
    for _ in 0..20 {
        assert_eq!(isolate.call(&call("")), Ok("3145728".into()));
        isolate.restore().unwrap();
    }
    let mut isolate = patient("(s, p) => new Uint8Array(5 << 20).length");
    for _ in 0..20 {
        assert_eq!(isolate.call(&call("")), Err(CallError::OutOfMemory(4 << 20)));
        isolate.restore().unwrap();
    }
}
