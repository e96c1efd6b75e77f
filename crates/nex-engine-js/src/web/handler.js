// The forms a function may have, as what the engine calls: a function of subject and payload.
"use strict";
({ native, env, take }) => {
  const pairs = (flat) => {
    const all = [];
    for (let at = 0; at + 1 < flat.length; at += 2) all.push([flat[at], flat[at + 1]]);
    return all;
  };
  // The message as a request: method and path from its headers, if it has them.
  const toRequest = (subject, payload) => {
    let [method, path] = ["POST", "/"];
    const headers = new Headers();
    for (const [name, value] of pairs(JSON.parse(native.headers()))) {
      const lower = name.toLowerCase();
      if (lower === "nex-http-method") method = value.toUpperCase();
      else if (lower === "nex-http-path") path = value.startsWith("/") ? value : `/${value}`;
      // A header that the web does not allow is not passed on.
      else try { headers.append(name, value); } catch { }
    }
    const body = method === "GET" || method === "HEAD" ? undefined : payload;
    return new Request(`nats://${encodeURIComponent(subject)}${path}`, { method, headers, body });
  };
  const canonical = (name) => name.replace(/(^|-)[a-z]/g, (start) => start.toUpperCase());
  const ofFetch = (handler) => async (subject, payload) => {
    const waiting = [];
    const context = Object.freeze({
      waitUntil: (promise) => void waiting.push(promise),
      passThroughOnException() {},
    });
    const response = await handler.fetch(toRequest(subject, payload), env, context);
    if (!(response instanceof Response)) throw new TypeError("fetch returned no Response: end it with return new Response(…)");
    const bytes = await response[take]();
    // What was promised has until the call's deadline; an error of it is told in the log.
    for (const { status, reason } of await Promise.allSettled(waiting)) if (status === "rejected") console.error(reason);
    const headers = [...response.headers].flatMap(([name, value]) => [canonical(name), value]);
    native.respond(response.status, response.statusText, JSON.stringify(headers));
    return bytes;
  };
  return (exported) => {
    if (typeof exported === "function") return exported;
    if (typeof exported === "object" && exported !== null && typeof exported.fetch === "function") return ofFetch(exported);
    return undefined;
  };
}
