//! The web's interfaces, by what their standards say. Each line is an expression and the JSON of its value.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;

use common::check;

#[tokio::test]
async fn urls_are_parsed_joined_and_changed() {
    check(&[
        ("new URL('../c?x=1#h', 'http://User:pw@EXAMPLE.com:80/a/b').href", r#""http://User:pw@example.com/c?x=1#h""#),
        ("((u) => [u.origin, u.host, u.port, u.pathname, u.search, u.hash])(new URL('https://h:8443/p?q#f'))",
            r##"["https://h:8443","h:8443","8443","/p","?q","#f"]"##),
        ("new URL('http://münchen.de/ä').href", r#""http://xn--mnchen-3ya.de/%C3%A4""#),
        ("name(() => new URL('nothing'))", r#""TypeError""#),
        ("[URL.canParse('x', 'http://h'), URL.canParse('x'), URL.parse('x')]", "[true,false,null]"),
        ("((u) => { u.port = '81'; u.pathname = 'a b'; u.hash = 'z'; u.hostname = 'other'; u.port = 'x'; return u })(new URL('http://h/'))",
            r#""http://other:81/a%20b#z""#),
        ("((u) => { u.searchParams.append('a', '1 2'); u.searchParams.set('b', '&'); u.search += '&c'; return [u.href, [...u.searchParams]] })(new URL('http://h/?b=0'))",
            r#"["http://h/?b=%26&a=1+2&c",[["b","&"],["a","1 2"],["c",""]]]"#),
        ("((p) => { p.sort(); p.delete('c'); return [String(p), p.getAll('a'), p.has('a', '2'), p.size] })(new URLSearchParams('?c=3&a=2&a=1'))",
            r#"["a=2&a=1",["2","1"],true,2]"#),
        ("[String(new URLSearchParams({ x: 'ü' })), String(new URLSearchParams([['a', 1]])), new URLSearchParams('a=%zz&b+c=d').get('b c')]",
            r#"["x=%C3%BC","a=1","d"]"#),
    ])
    .await;
}

#[tokio::test]
async fn texts_are_encoded_and_decoded_also_in_pieces() {
    check(&[
        ("[...new TextEncoder().encode('a\\ud800é')]", "[97,239,191,189,195,169]"),
        ("new TextEncoder().encodeInto('aé€', new Uint8Array(4))", r#"{"read":2,"written":3}"#),
        ("((d) => [d.decode(bytes(0xe2, 0x82), { stream: true }), d.decode(bytes(0xac), { stream: true }), d.decode()])(new TextDecoder())",
            r#"["","€",""]"#),
        ("((d) => d.decode(bytes(0xf0, 0x9f), { stream: true }) + d.decode())(new TextDecoder())", "\"\u{fffd}\""),
        ("((d) => d.decode(bytes(0xed, 0xa0), { stream: true }) + '|' + d.decode())(new TextDecoder())", "\"\u{fffd}\u{fffd}|\""),
        ("name(() => new TextDecoder('utf-8', { fatal: true }).decode(bytes(0xe2, 0x82)))", r#""TypeError""#),
        ("[new TextDecoder().decode(bytes(0xef, 0xbb, 0xbf, 65)).length, new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes(0xef, 0xbb, 0xbf, 65)).length]", "[1,2]"),
        ("((d) => d.decode(bytes(0xef, 0xbb, 0xbf, 65), { stream: true }) + d.decode(bytes(0xef, 0xbb, 0xbf)).length)(new TextDecoder())", r#""A1""#),
        ("new TextDecoder('UTF-16').decode(bytes(0xff, 0xfe, 0x3d, 0xd8, 0x00, 0xde))", "\"😀\""),
        ("((d) => d.decode(bytes(0x3d, 0xd8, 0x00), { stream: true }) + d.decode(bytes(0xde)))(new TextDecoder('utf-16le'))", "\"😀\""),
        ("[await name(() => new TextDecoder('latin-99')), await name(() => new TextDecoder('hz-gb-2312')), new TextDecoder('latin1').encoding, new TextDecoder('ucs-2').encoding]",
            r#"["RangeError","RangeError","windows-1252","utf-16le"]"#),
        ("[new TextDecoder('latin1').decode(bytes(0x80, 0xe4)), new TextDecoder('iso-8859-15').decode(bytes(0xa4)), new TextDecoder('shift_jis').decode(bytes(0x83, 0x65)), new TextDecoder('utf-16be').decode(bytes(0xfe, 0xff, 0, 65))]",
            "[\"€ä\",\"€\",\"テ\",\"A\"]"),
        ("((d) => [d.decode(bytes(0x83), { stream: true }), d.decode(bytes(0x65), { stream: true }), d.decode(), d.decode(bytes(65))])(new TextDecoder('shift_jis'))", "[\"\",\"\",\"テ\",\"A\"]"),
        ("((d) => [d.decode(bytes(0xe4), { stream: true }), d.decode()])(new TextDecoder('windows-1252'))", "[\"ä\",\"\"]"),
        ("[await name(() => new TextDecoder('euc-kr', { fatal: true }).decode(bytes(0xff))), new TextDecoder('euc-kr').decode(bytes(0xff))]", "[\"TypeError\",\"\u{fffd}\"]"),
        ("[new TextDecoder(' UTF8 ').encoding, new TextDecoder().decode(new DataView(bytes(1, 65, 2).buffer, 1, 1))]", r#"["utf-8","A"]"#),
        ("[atob(' aGk = '), await name(() => atob('a')), await name(() => btoa('€'))]", r#"["hi","InvalidCharacterError","InvalidCharacterError"]"#),
    ])
    .await;
}

#[tokio::test]
async fn events_reach_their_listeners_and_signals_abort() {
    check(&[
        ("((t, all) => { t.addEventListener('a', (e) => all.push(e.type, e.target === t), { once: true }); t.addEventListener('a', { handleEvent: () => all.push('o') });
            t.dispatchEvent(new Event('a')); t.dispatchEvent(new CustomEvent('a', { detail: 1 })); return all })(new EventTarget(), [])",
            r#"["a",true,"o","o"]"#),
        ("((t) => { t.addEventListener('a', (e) => e.preventDefault()); return [t.dispatchEvent(new Event('a', { cancelable: true })), t.dispatchEvent(new Event('a'))] })(new EventTarget())",
            "[false,true]"),
        ("((t, all) => { t.addEventListener('a', (e) => { all.push(1); e.stopImmediatePropagation() }); t.addEventListener('a', () => all.push(2)); t.dispatchEvent(new Event('a')); return all })(new EventTarget(), [])", "[1]"),
        ("((c, all) => { c.signal.onabort = () => all.push('on'); c.signal.addEventListener('abort', () => all.push(c.signal.reason.name)); c.abort(); c.abort(); return all })(new AbortController(), [])",
            r#"["on","AbortError"]"#),
        ("((c) => { const any = AbortSignal.any([c.signal, AbortSignal.timeout(1e6)]); c.abort('why'); return [any.aborted, any.reason] })(new AbortController())", r#"[true,"why"]"#),
        ("new Promise((done) => { const s = AbortSignal.timeout(1); s.addEventListener('abort', () => done(s.reason.name)) })", r#""TimeoutError""#),
        ("[await name(() => AbortSignal.abort().throwIfAborted()), await name(() => new AbortSignal()), await name(() => new EventTarget().dispatchEvent({}))]",
            r#"["AbortError","TypeError","TypeError"]"#),
    ])
    .await;
}

#[tokio::test]
async fn timers_repeat_until_they_are_cleared_and_values_are_cloned() {
    check(&[
        ("new Promise((done) => { let n = 0; const t = setInterval((by) => { n += by; if (n === 6) { clearInterval(t); done(n) } }, 1, 2) })", "6"),
        ("((o) => { o.self = o; const c = structuredClone(o); return [c !== o, c.self === c, c.d.getTime(), c.m.get(1).x, [...c.s], c.r.source, c.b[1], c.e.message, c.e instanceof TypeError] })({ d: new Date(5), m: new Map([[1, { x: 2 }]]), s: new Set([3]), r: /a/g, b: bytes(1, 2), e: new TypeError('t') })",
            r#"[true,true,5,2,[3],"a",2,"t",true]"#),
        ("[await name(() => structuredClone(() => 1)), await name(() => structuredClone({ a: Symbol() }))]", r#"["DataCloneError","DataCloneError"]"#),
        ("((b) => { const c = structuredClone(b, { transfer: [b.buffer] }); return [c.length, b.length] })(bytes(1, 2))", "[2,0]"),
        ("[self === globalThis, navigator.userAgent, performance.now() >= 0, typeof performance.timeOrigin]", r#"[true,"nex",true,"number"]"#),
    ])
    .await;
}

#[tokio::test]
async fn digests_and_signatures_are_those_of_the_standard() {
    let key = "crypto.subtle.importKey('raw', new TextEncoder().encode('key'), { name: 'HMAC', hash: 'SHA-256' }, true, ['sign', 'verify'])";
    let signed = format!(
        "hex(await crypto.subtle.sign('HMAC', await {key}, new TextEncoder().encode('The quick brown fox jumps over the lazy dog')))"
    );
    let verified = format!(
        "(async (k, d) => {{ const s = await crypto.subtle.sign('HMAC', k, d); const yes = await crypto.subtle.verify('HMAC', k, s, d);
            new Uint8Array(s)[0] ^= 1; return [yes, await crypto.subtle.verify('HMAC', k, s, d), await crypto.subtle.verify('HMAC', k, s.slice(1), d)] }})(await {key}, bytes(1))"
    );
    let jwk = format!("(await crypto.subtle.exportKey('jwk', await {key}))");
    check(&[
        ("hex(await crypto.subtle.digest('SHA-1', bytes()))", r#""da39a3ee5e6b4b0d3255bfef95601890afd80709""#),
        ("hex(await crypto.subtle.digest({ name: 'sha-256' }, new TextEncoder().encode('abc')))",
            r#""ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad""#),
        ("[(await crypto.subtle.digest('SHA-384', bytes())).byteLength, (await crypto.subtle.digest('SHA-512', bytes())).byteLength]", "[48,64]"),
        (signed.as_str(), r#""f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8""#),
        (verified.as_str(), "[true,false,false]"),
        (jwk.as_str(), r#"{"kty":"oct","k":"a2V5","alg":"HS256","key_ops":["sign","verify"],"ext":true}"#),
        ("[await name(() => crypto.subtle.digest('MD5', bytes())), await name(() => crypto.subtle.importKey('raw', bytes(1), { name: 'HMAC', hash: 'SHA-256' }, true, []))]",
            r#"["NotSupportedError","SyntaxError"]"#),
        ("[crypto.getRandomValues(new Uint32Array(4)).length, crypto.randomUUID().length, await name(() => crypto.getRandomValues(new Uint8Array(65537)))]",
            r#"[4,36,"QuotaExceededError"]"#),
    ])
    .await;
}

#[tokio::test]
async fn headers_requests_and_responses_keep_their_rules() {
    check(&[
        ("((h) => { h.append('B', '2'); h.append('b', ' 3 '); h.append('Set-Cookie', 'a'); h.append('set-cookie', 'b'); return [[...h], h.getSetCookie(), h.get('none')] })(new Headers({ a: '1' }))",
            r#"[[["a","1"],["b","2, 3"],["set-cookie","a"],["set-cookie","b"]],["a","b"],null]"#),
        ("[await name(() => new Headers({ 'a b': '1' })), await name(() => new Headers({ a: '1\\r\\nb: 2' })), await name(() => new Headers([['a']]))]",
            r#"["TypeError","TypeError","TypeError"]"#),
        ("((r) => [r.method, r.url, r.headers.get('content-type')])(new Request('http://h', { method: 'post', body: 'x' }))",
            r#"["POST","http://h/","text/plain;charset=UTF-8"]"#),
        ("(async (r) => { const c = r.clone(); return [await r.text(), await c.text(), r.bodyUsed, await name(() => r.text())] })(new Request('http://h', { method: 'PUT', body: 'x' }))",
            r#"["x","x",true,"TypeError"]"#),
        ("[await name(() => new Request('http://h', { body: 'x' })), await name(() => new Request('relative')), await name(() => new Response('x', { status: 204 })), await name(() => new Response('', { status: 99 }))]",
            r#"["TypeError","TypeError","TypeError","RangeError"]"#),
        ("((r) => [r.status, r.ok, r.headers.get('location')])(Response.redirect('http://h/x', 307))", r#"[307,false,"http://h/x"]"#),
        ("(async (f) => { f.append('file', new File(['data'], 'n\"1.txt', { type: 'text/x' })); f.append('t', 'é'); const g = await new Response(f).formData(); const file = g.get('file'); return [file.name, file.type, await file.text(), g.get('t')] })(new FormData())",
            r#"["n\"1.txt","text/x","data","é"]"#),
        ("(async (f) => [...f])(await new Request('http://h', { method: 'POST', body: new URLSearchParams('a=1&b=%26') }).formData())", r#"[["a","1"],["b","&"]]"#),
        ("((b) => [b.size, b.type, b.slice(1, 3).size])(new Blob(['hé', bytes(1)], { type: 'Text/Plain' }))", r#"[4,"text/plain",2]"#),
    ])
    .await;
}

#[tokio::test]
async fn streams_pull_end_fail_and_are_cancelled() {
    check(&[
        ("(async (all) => { for await (const chunk of new ReadableStream({ start(c) { c.enqueue(1); c.enqueue(2); c.close() } })) all.push(chunk); return all })([])", "[1,2]"),
        ("(async (n, all) => { for await (const chunk of new ReadableStream({ pull(c) { n++ < 3 ? c.enqueue(n) : c.close() } })) all.push(chunk); return all })(0, [])", "[1,2,3]"),
        ("(async (s) => { const [a, b] = s.tee(); return [await new Response(a).text(), await new Response(b).text(), s.locked] })(new Blob(['twice']).stream())", r#"["twice","twice",true]"#),
        ("(async (why) => { const s = new ReadableStream({ cancel(reason) { why.push(reason) } }); await s.cancel('no more'); return [why, await s.getReader().read()] })([])", r#"[["no more"],{"done":true}]"#),
        ("name(() => new ReadableStream({ start() { throw new RangeError('x') } }))", r#""RangeError""#),
        ("(async (s) => { const r = s.getReader(); return [await name(() => s.getReader()), await name(() => r.read())] })(new ReadableStream({ pull() { throw new SyntaxError('x') } }))",
            r#"["TypeError","SyntaxError"]"#),
    ])
    .await;
}

/// All that the standard's list has, but for `WebAssembly`.
const GLOBALS: &str = "AbortController AbortSignal Blob ByteLengthQueuingStrategy CompressionStream CountQueuingStrategy Crypto CryptoKey CustomEvent DecompressionStream DOMException ErrorEvent Event EventTarget File FormData Headers MessageChannel MessageEvent MessagePort Performance PromiseRejectionEvent ReadableByteStreamController ReadableStream ReadableStreamBYOBReader ReadableStreamBYOBRequest ReadableStreamDefaultController ReadableStreamDefaultReader Request Response SubtleCrypto TextDecoder TextDecoderStream TextEncoder TextEncoderStream TransformStream TransformStreamDefaultController URL URLPattern URLSearchParams WritableStream WritableStreamDefaultController atob btoa clearInterval clearTimeout console crypto fetch globalThis navigator performance queueMicrotask reportError self setInterval setTimeout structuredClone onerror onunhandledrejection onrejectionhandled";

#[tokio::test]
async fn what_is_missing_of_the_minimum_common_api_is_what_the_documents_say() {
    let missing = format!("'{GLOBALS}'.split(' ').filter((name) => !(name in globalThis))");
    // What `docs/javascript.md` says.
    let said = r#"["Crypto","Performance","ReadableByteStreamController","ReadableStreamBYOBRequest","ReadableStreamDefaultController","SubtleCrypto","TransformStreamDefaultController","WritableStreamDefaultController","onerror","onunhandledrejection","onrejectionhandled"]"#;
    check(&[(&missing, said)]).await;
}

#[tokio::test]
async fn patterns_of_urls_match_and_give_their_groups() {
    check(&[
        ("((p) => [p.test('https://shop.example/orders/7'), p.exec('https://shop.example/orders/7').pathname.groups, p.test('https://shop.example/'), p.pathname])(new URLPattern({ pathname: '/orders/:id' }))",
            r#"[true,{"id":"7"},false,"/orders/:id"]"#),
        ("((p) => [p.hostname, p.exec('https://a.b.example/x/y?q=1').hostname.groups, p.exec({ protocol: 'https', hostname: 'z.example', pathname: '/' }).inputs.length])(new URLPattern('https://*.example/*'))",
            r#"["*.example",{"0":"a.b"},1]"#),
        ("((p) => [p.test('/B/12', 'http://h'), p.test('/b/x', 'http://h'), p.hasRegExpGroups, p.exec('/b/12', 'http://h').pathname.groups.n])(new URLPattern('/b/:n(\\\\d+)', 'http://h', { ignoreCase: true }))",
            r#"[true,false,true,"12"]"#),
        ("((p) => [p.test({ pathname: '/a' }), p.test({ pathname: '/a/b' }), p.exec({ pathname: '/a' }).pathname.groups])(new URLPattern({ pathname: '/a{/:rest}?' }))", "[true,true,{}]"),
        ("[await name(() => new URLPattern({ pathname: '/(' })), await name(() => new URLPattern('/a')), new URLPattern({ pathname: '/a' }).exec('no url'), String(new URLPattern())]",
            r#"["TypeError","TypeError",null,"[object URLPattern]"]"#),
    ])
    .await;
}

#[tokio::test]
async fn ports_of_a_channel_hear_each_other_in_turns_of_their_own() {
    check(&[
        ("new Promise((done) => { const { port1, port2 } = new MessageChannel(); const all = []; port2.onmessage = ({ data }) => { all.push(data); if (all.length === 3) done(all) }; port1.postMessage({ a: [1] }); port1.postMessage('two'); all.push('first') })",
            r#"["first",{"a":[1]},"two"]"#),
        ("(async () => { const { port1, port2 } = new MessageChannel(); port1.postMessage(1); port2.close(); port2.start(); return [await name(() => port1.postMessage(() => {})), await name(() => new MessagePort()), port1 instanceof EventTarget] })()",
            r#"["DataCloneError","TypeError",true]"#),
        ("[new MessageEvent('m', { data: 1 }).data, new ErrorEvent('e', { message: 'x' }).message, new PromiseRejectionEvent('r', { promise: Promise.resolve(), reason: 2 }).reason]", r#"[1,"x",2]"#),
    ])
    .await;
}
