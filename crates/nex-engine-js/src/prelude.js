// What a script finds besides the language. Evaluated once, before the script; `native` is visible here and in `web` only.
// The completion value is a function of the natives and of the parts in `web`, by name; it gives what the engine calls: the timers, what
// makes a callable of a script's export, and what makes a reply of a value.
(native, web) => {
  "use strict";
  const provide = (name, value) =>
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  // Interfaces that few scripts use are made when the first of them is asked for. What a script has put in their place stays.
  const lazily = (names, make) => {
    const put = (name, value) => { if (Object.getOwnPropertyDescriptor(globalThis, name)?.get !== undefined) provide(name, value); };
    let made;
    const once = () => made ??= make(put) ?? {};
    for (const name of names) {
      Object.defineProperty(globalThis, name, {
        get() { once(); return globalThis[name]; }, set(value) { provide(name, value); }, configurable: true, enumerable: false,
      });
    }
    return once;
  };

  // console: one line per call on the workload's output.
  const show = (value) => {
    if (typeof value === "string") return value;
    try {
      if (value instanceof Error) return `${value}\n${value.stack ?? ""}`.trimEnd();
      if (typeof value === "object" && value !== null) return JSON.stringify(value) ?? String(value);
      return String(value);
    } catch {
      return "[value without a text]";
    }
  };
  const writer = (isError) => (...values) => native.log(isError, values.map(show).join(" ").toWellFormed());
  const [out, err] = [writer(false), writer(true)];
  provide("console", { log: out, info: out, debug: out, warn: err, error: err });

  // The engine's own would repeat: its state is put back after every call.
  Object.defineProperty(Math, "random", { value: () => native.random(), writable: true, configurable: true, enumerable: false });
  provide("performance", Object.freeze({ now: () => native.now(), get timeOrigin() { return native.timeOrigin(); } }));

  const env = Object.freeze(JSON.parse(native.environment));
  provide("env", env);
  provide("process", Object.freeze({ env }));

  const asBytes = (value) => {
    if (value === undefined) return new Uint8Array();
    if (value instanceof Uint8Array) return value;
    if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    if (value instanceof ArrayBuffer) return new Uint8Array(value);
    throw new TypeError("expected an ArrayBuffer or a view of one");
  };
  const { tick, ...timers } = web.timers({ provide, native });
  web.events({ provide, timers });
  web.encoding({ provide, native, asBytes });
  web.url({ provide, native });
  const keys = lazily(["CryptoKey"], (provide) => native.part("subtle")({ provide, native, asBytes }));
  web.crypto({ provide, native, subtle: () => keys().subtle });
  web.locale({ provide, native });
  const { oneByOne } = web.streams({ provide });
  const parts = web.blob({ provide, native, asBytes });
  const { take, source } = web.fetch({ provide, native, asBytes, http: native.http, ...parts });
  const writable = lazily(
    ["WritableStream", "WritableStreamDefaultWriter", "TransformStream", "CountQueuingStrategy", "ByteLengthQueuingStrategy"],
    (provide) => native.part("writable")({ provide }));
  for (const name of ["pipeTo", "pipeThrough"]) {
    const value = function (...given) { return writable()[name](this, ...given); };
    Object.defineProperty(ReadableStream.prototype, name, { value, writable: true, configurable: true, enumerable: false });
  }
  lazily(["TextEncoderStream", "TextDecoderStream", "CompressionStream", "DecompressionStream"],
    (provide) => native.part("transforms")({ provide, native, asBytes, ...parts }));
  lazily(["URLPattern"], (provide) => native.part("pattern")({ provide, native }));
  lazily(["MessageChannel", "MessagePort", "MessageEvent", "ErrorEvent", "PromiseRejectionEvent"],
    (provide) => native.part("messages")({ provide, timers }));
  const toFunction = web.handler({ native, env, take, source, oneByOne });

  // Host services: synchronous, errors thrown as strings, arguments counted, as Nex 0.2.7 has them.
  const need = (given, count, complaint) => { if (given.length !== count) throw complaint; };
  const octets = (value) => {
    if (value instanceof Uint8Array) return value;
    throw "failed to marshal v8 value to []byte: only Uint8[] is supported";
  };
  const call = (service, method, target = "", body = undefined, headers = undefined) =>
    native.host(service, method, String(target).toWellFormed(), body, headers);
  // A message may have a third argument: { headers }, as the constructor of Headers takes them. Their names are sent as they are written.
  const message = (method) => (...given) => {
    if (given.length !== 3) need(given, 2, "subject and payload are required");
    const { headers = {} } = given[2] ?? {};
    const pairs = typeof headers[Symbol.iterator] === "function" ? [...headers] : Object.entries(headers);
    const written = pairs.map(([name, value]) => [String(name).toWellFormed(), String(value).toWellFormed()]);
    new Headers(written);
    return call("messaging", method, given[0], octets(given[1]), JSON.stringify(written));
  };
  const parsed = (bytes) => JSON.parse(native.decode(bytes, false, false));
  const http = (method) => (...given) => {
    if (given.length !== 1 && given.length !== 2) throw "url is required";
    const body = given.length === 2 ? octets(given[1]) : undefined;
    const { status, headers, response, bytes } = native.http(method, String(given[0]).toWellFormed(), body);
    const reply = headers === "" ? { status, response } : { status, headers: JSON.parse(headers), response };
    return Object.defineProperty(reply, "bytes", { value: bytes, enumerable: false });
  };
  provide("hostServices", Object.freeze({
    http: Object.freeze({
      get: http("get"), post: http("post"), put: http("put"), patch: http("patch"),
      delete: http("delete"), del: http("delete"), head: http("head"),
    }),
    kv: Object.freeze({
      get(...given) { need(given, 1, "key is required"); return call("kv", "get", given[0]); },
      set(...given) { need(given, 2, "key and value are required"); call("kv", "set", given[0], octets(given[1])); },
      delete(...given) { need(given, 1, "key is required"); call("kv", "delete", given[0]); },
      keys() { return parsed(call("kv", "keys")); },
      // Compare and set: a value with its revision (0 where there is none), and an update of that revision only.
      entry(...given) {
        need(given, 1, "key is required");
        const bytes = call("kv", "entry", given[0]);
        const revision = Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0));
        return revision === 0 ? { revision, value: null } : { revision, value: bytes.slice(8) };
      },
      update(...given) {
        need(given, 3, "key, value and revision are required");
        const headers = JSON.stringify([["revision", String(given[2])]]);
        return parsed(call("kv", "update", given[0], octets(given[1]), headers)).revision;
      },
      increment(...given) {
        if (given.length !== 2) need(given, 1, "key is required");
        const delta = native.encode(String(given[1] ?? 1));
        return Number(native.decode(call("kv", "increment", given[0], delta), false, false));
      },
    }),
    messaging: Object.freeze({
      publish(...given) { message("publish")(...given); },
      request: message("request"),
      requestMany(...given) {
        need(given, 2, "subject and payload are required");
        const replies = parsed(call("messaging", "requestMany", given[0], octets(given[1])));
        return replies.map((reply) => Uint8Array.from(atob(reply), (byte) => byte.charCodeAt(0)));
      },
    }),
    objectStore: Object.freeze({
      get(...given) { need(given, 1, "name is required"); return call("objectstore", "get", given[0]); },
      put(...given) {
        need(given, 2, "name and value are required");
        return parsed(call("objectstore", "put", given[0], octets(given[1])));
      },
      delete(...given) { need(given, 1, "name is required"); call("objectstore", "delete", given[0]); },
      list() { return parsed(call("objectstore", "list")); },
    }),
  }));

  // JSON of what a function returned; what JSON would lose without a word is refused with one.
  const { stringify } = JSON;
  const better = (value) => {
    switch (typeof value) {
      case "bigint": return "a BigInt, which JSON does not have: return String(value) or Number(value)";
      case "function": return "a function, which cannot be sent: return a value, or call it";
      case "symbol": return "a symbol, which cannot be sent: return its description";
      case "object":
        if (value instanceof Map) return "a Map, which JSON does not have: return Object.fromEntries(map) or [...map]";
        if (value instanceof Set) return "a Set, which JSON does not have: return [...set]";
    }
  };
  const toReply = (value) => {
    const complaint = typeof value?.toJSON === "function" ? undefined : better(value);
    if (complaint !== undefined) throw `function returned ${complaint}`;
    return stringify(value);
  };

  return { tick, toFunction, toReply };
}
