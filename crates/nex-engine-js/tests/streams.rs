//! Streams of the web that are written to and piped. Each line is an expression and the JSON of its value, which is that of Node.js as well where it keeps to the standard.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;

use common::check;

#[tokio::test]
async fn what_is_written_goes_to_its_sink_one_after_the_other() {
    check(&[
        (r#"(async (all) => { const w = new WritableStream({ write(c) { all.push(c) }, close() { all.push('end') } }).getWriter(); w.write(1); w.write(2); await w.close(); return all })([])"#, r#"[1,2,"end"]"#),
        (r#"(async (all) => { const w = new WritableStream({ async write(c) { all.push(c); await null } }, { highWaterMark: 2 }).getWriter(); const sizes = [w.desiredSize]; const one = w.write(1); sizes.push(w.desiredSize); const two = w.write(2); sizes.push(w.desiredSize); let ready = false; w.ready.then(() => ready = true); await null; sizes.push(ready); await two; await w.ready; sizes.push(w.desiredSize); return [sizes, all] })([])"#, r#"[[2,1,0,false,2],[1,2]]"#),
        (r#"(async (s) => { const w = s.getWriter(); return [await name(() => w.write(1)), await name(() => w.closed), await name(() => w.write(2)), await name(() => w.close()), w.desiredSize, s.locked] })(new WritableStream({ write() { throw new RangeError('full') } }))"#, r#"["RangeError","RangeError","RangeError","TypeError",null,true]"#),
        (r#"(async (why) => { const s = new WritableStream({ abort(reason) { why.push(reason) }, write() { return new Promise(() => {}) } }); await s.abort('no more'); return [why, await name(() => s.getWriter().write(1))] })([])"#, r#"[["no more"],null]"#),
        (r#"(async (s) => { const w = s.getWriter(); const again = await name(() => s.getWriter()); w.releaseLock(); return [again, await name(() => w.write(1)), s.locked, await name(() => s.close()), await name(() => s.close())] })(new WritableStream())"#, r#"["TypeError","TypeError",false,"nothing thrown","TypeError"]"#),
        (r#"(async () => { const w = new WritableStream({ start(c) { c.error(new SyntaxError('x')) } }).getWriter(); return [await name(() => w.ready), await name(() => w.closed)] })()"#, r#"["SyntaxError","SyntaxError"]"#),
    ])
    .await;
}

#[tokio::test]
async fn transforms_wait_until_somebody_reads_and_fail_on_both_sides() {
    check(&[
        (r#"(async () => { const t = new TransformStream({ transform(c, to) { to.enqueue(c * 2); to.enqueue(c * 2 + 1) }, flush(to) { to.enqueue('end') } }); const all = []; const w = t.writable.getWriter(); const written = (async () => { await w.write(1); await w.write(2); await w.close() })(); for await (const c of t.readable) all.push(c); await written; return all })()"#, r#"[2,3,4,5,"end"]"#),
        (r#"(async () => { const { readable, writable } = new TransformStream(); const w = writable.getWriter(); let done = false; w.write('a').then(() => done = true); await new Promise((r) => setTimeout(r, 1)); const before = done; const read = await readable.getReader().read(); await new Promise((r) => setTimeout(r, 1)); return [before, read, done] })()"#, r#"[false,{"value":"a","done":false},true]"#),
        (r#"(async () => { const t = new TransformStream({ transform() { throw new RangeError('x') } }); const w = t.writable.getWriter(); w.write(1).catch(() => {}); return [await name(() => t.readable.getReader().read()), await name(() => w.closed)] })()"#, r#"["RangeError","RangeError"]"#),
        (r#"(async () => { const t = new TransformStream({ transform(c, to) { to.enqueue(c); to.terminate() } }); const w = t.writable.getWriter(); w.write(1).catch(() => {}); const r = t.readable.getReader(); return [await r.read(), await r.read(), await name(() => w.write(2))] })()"#, r#"[{"value":1,"done":false},{"done":true},"TypeError"]"#),
        (r#"(async (why) => { const t = new TransformStream({ cancel(reason) { why.push(reason) } }); await t.readable.cancel('gone'); return [await t.writable.getWriter().write(1).catch((e) => e)] })([])"#, r#"["gone"]"#),
        (r#"(async () => { const t = new TransformStream({ start(to) { to.enqueue('first') } }, undefined, { highWaterMark: 3 }); const w = t.writable.getWriter(); w.write('second'); w.close(); const all = []; for await (const c of t.readable) all.push(c); return all })()"#, r#"["first","second"]"#),
    ])
    .await;
}

#[tokio::test]
async fn pipes_end_fail_and_are_aborted() {
    check(&[
        (r#"(async (all) => { await ReadableStream.from([1, 2, 3]).pipeTo(new WritableStream({ write(c) { all.push(c) }, close() { all.push('end') } })); return all })([])"#, r#"[1,2,3,"end"]"#),
        (r#"(async (all) => [await name(() => new ReadableStream({ pull() { throw new RangeError('x') } }).pipeTo(new WritableStream({ abort(e) { all.push(e.name) } }))), all])([])"#, r#"["RangeError",["RangeError"]]"#),
        (r#"(async (all) => [await name(() => new ReadableStream({ pull(c) { c.enqueue(1) }, cancel(e) { all.push(e.name) } }).pipeTo(new WritableStream({ write() { throw new RangeError('x') } }))), all])([])"#, r#"["RangeError",["RangeError"]]"#),
        (r#"(async (all) => { const c = new AbortController(); const piped = new ReadableStream({ cancel(e) { all.push('cancelled', e) } }).pipeTo(new WritableStream({ abort(e) { all.push('aborted', e) } }), { signal: c.signal }); c.abort('stop'); return [await piped.catch((e) => e), all.sort()] })([])"#, r#"["stop",["aborted","cancelled","stop","stop"]]"#),
        (r#"(async (all) => { const to = new WritableStream({ write(c) { all.push(c) }, close() { all.push('end') } }); await ReadableStream.from([1]).pipeTo(to, { preventClose: true }); const w = to.getWriter(); await w.write(2); await w.close(); return all })([])"#, r#"[1,2,"end"]"#),
        (r#"(async () => { const upper = new TransformStream({ transform(c, to) { to.enqueue(c.toUpperCase()) } }); return await new Response(ReadableStream.from(['a', 'b']).pipeThrough(upper).pipeThrough(new TextEncoderStream())).text() })()"#, r#""AB""#),
    ])
    .await;
}

#[tokio::test]
async fn texts_and_compressed_bytes_are_transformed() {
    check(&[
        (r#"(async () => { const all = []; for await (const c of ReadableStream.from([bytes(0xe2, 0x82), bytes(0xac, 65)]).pipeThrough(new TextDecoderStream())) all.push(c); return all })()"#, r#"["€A"]"#),
        (r#"(async () => { const all = []; for await (const c of ReadableStream.from(['a\ud83d', '\ude00', '\ud83d']).pipeThrough(new TextEncoderStream())) all.push(hex(c)); return all.join('') })()"#, r#""61f09f9880efbfbd""#),
        (r#"(async () => { const all = {}; for (const format of ['gzip', 'deflate', 'deflate-raw']) { const packed = new Blob(['abc '.repeat(1000)]).stream().pipeThrough(new CompressionStream(format)); const text = await new Response(packed.pipeThrough(new DecompressionStream(format))).text(); all[format] = text.length } return all })()"#, r#"{"gzip":4000,"deflate":4000,"deflate-raw":4000}"#),
        (r#"(async () => [await name(() => new CompressionStream('zip')), await name(() => new Response(new Blob(['nonsense']).stream().pipeThrough(new DecompressionStream('gzip'))).text())])()"#, r#"["TypeError","TypeError"]"#),
        (r#"[new CountQueuingStrategy({ highWaterMark: 3 }).highWaterMark, new ByteLengthQueuingStrategy({ highWaterMark: 4 }).size(bytes(1, 2))]"#, r#"[3,2]"#),
        (r#"(async () => { const w = new WritableStream({}, new ByteLengthQueuingStrategy({ highWaterMark: 4 })).getWriter(); w.write(bytes(1, 2, 3)); return w.desiredSize })()"#, r#"1"#),
        (r#"[String(new WritableStream()), String(new TransformStream()), String(new TextDecoderStream()), new TextDecoderStream('utf-16le').encoding]"#, r#"["[object WritableStream]","[object TransformStream]","[object TextDecoderStream]","utf-16le"]"#),
        (r#"name(() => ReadableStream.from([1]).pipeTo({}))"#, r#""TypeError""#),
        (r#"(async (s) => { s.getReader(); return await name(() => s.pipeTo(new WritableStream())) })(new ReadableStream())"#, r#""TypeError""#),
        (r#"((mine) => { globalThis.TransformStream = mine; new WritableStream(); return TransformStream === mine })(class {})"#, "true"),
        (r#"(() => { const { TransformStream: first } = globalThis; return [first === TransformStream, Object.keys(globalThis).includes('WritableStream')] })()"#, "[true,false]"),
        (r#"(async () => { const packed = await new Response(new Blob([new Uint8Array(1 << 20)]).stream().pipeThrough(new CompressionStream('gzip'))).bytes(); return await name(() => new Response(new Blob(Array(40).fill(packed)).stream().pipeThrough(new DecompressionStream('gzip'))).bytes()) })()"#, "\"RangeError\""),
        (r#"(async () => { const s = new ReadableStream({ type: 'bytes', pull(c) { c.enqueue(bytes(1, 2, 3)); c.close() } }); const r = s.getReader({ mode: 'byob' }); const read = async (n) => { const { value, done } = await r.read(new Uint8Array(n)); return [...value, done] }; return [await read(2), await read(2), await read(2)] })()"#, "[[1,2,false],[3,false],[true]]"),
        (r#"name(() => new ReadableStream().getReader({ mode: 'byob' }))"#, "\"TypeError\""),
    ])
    .await;
}
