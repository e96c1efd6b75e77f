// The forms a function may have, as what the engine calls: a function of subject and payload.
"use strict";
({ native, env, take, source, oneByOne }) => {
  const pairs = (flat) => {
    const all = [];
    for (let at = 0; at + 1 < flat.length; at += 2) all.push([flat[at], flat[at + 1]]);
    return all;
  };
  // The message as a request: method and path from its headers, if it has them. One with a scheme was a request of HTTP.
  const toRequest = (subject, payload) => {
    let [method, path, scheme, host] = ["POST", "/", "nats", encodeURIComponent(subject)];
    const headers = new Headers();
    for (const [name, value] of pairs(JSON.parse(native.headers()))) {
      const lower = name.toLowerCase();
      if (lower === "nex-http-method") method = value.toUpperCase();
      else if (lower === "nex-http-path") path = value.startsWith("/") ? value : `/${value}`;
      else if (lower === "nex-http-scheme" && (value === "http" || value === "https")) scheme = value;
      // A header that the web does not allow is not passed on.
      else try { headers.append(name, value); } catch { }
    }
    const isHttp = scheme !== "nats";
    if (isHttp) host = headers.get("host") ?? "localhost";
    const body = method === "GET" || method === "HEAD" ? undefined : payload;
    return { request: new Request(`${scheme}://${host}${path}`, { method, headers, body }), isHttp };
  };
  const canonical = (name) => name.replace(/(^|-)[a-z]/g, (start) => start.toUpperCase());
  // Sends what a script writes as it writes it, if whoever asked takes that; until the first piece, a failure is one of the whole.
  const stream = async (response, head) => {
    const pieces = source.call(response);
    if (pieces === undefined || !native.takesPieces()) return undefined;
    let begun = false;
    for await (const piece of oneByOne(pieces)) {
      if (!(piece instanceof Uint8Array)) throw new TypeError("a body's stream gives Uint8Arrays");
      if (!begun) native.begin(...head);
      begun = true;
      native.piece(piece);
    }
    return new Uint8Array();
  };
  const ofFetch = (handler) => async (subject, payload) => {
    const waiting = [];
    const context = Object.freeze({
      waitUntil: (promise) => void waiting.push(promise),
      passThroughOnException() {},
    });
    const { request, isHttp } = toRequest(subject, payload);
    const response = await handler.fetch(request, env, context);
    if (!(response instanceof Response)) throw new TypeError("fetch returned no Response: end it with return new Response(…)");
    const headers = [...response.headers].flatMap(([name, value]) => [canonical(name), value]);
    // Whoever asked by HTTP is answered with the status and all that comes with it; for others a failure is a failed call.
    if (isHttp) headers.push("Nex-Http-Status", String(response.status));
    const head = [isHttp ? 200 : response.status, response.statusText, JSON.stringify(headers)];
    const bytes = (isHttp && await stream(response, head)) || await response[take]();
    // What was promised has until the call's deadline; an error of it is told in the log.
    for (const { status, reason } of await Promise.allSettled(waiting)) if (status === "rejected") console.error(reason);
    native.respond(...head);
    return bytes;
  };
  return (exported) => {
    if (typeof exported === "function") return exported;
    if (typeof exported === "object" && exported !== null && typeof exported.fetch === "function") return ofFetch(exported);
    return undefined;
  };
}
