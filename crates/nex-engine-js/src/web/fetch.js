// Headers, Request, Response and fetch.
"use strict";
({ provide, native, asBytes, http, joined, contents, toMultipart, toForm }) => {
  const field = (name) => {
    name = String(name);
    if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(name)) throw new TypeError(`Invalid header name: ${name.slice(0, 100)}`);
    return name.toLowerCase();
  };
  const content = (value) => {
    value = String(value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
    if (/[\0\r\n]|[^\0-\xff]/.test(value)) throw new TypeError("Invalid header value");
    return value;
  };
  class Headers {
    #map = new Map();
    constructor(init = undefined) {
      if (init === undefined) return;
      if (typeof init !== "object" || init === null) throw new TypeError("Headers takes an object, or pairs of name and value");
      if (typeof init[Symbol.iterator] === "function") {
        for (const pair of init) {
          const both = [...pair];
          if (both.length !== 2) throw new TypeError("Headers takes pairs of a name and a value");
          this.append(...both);
        }
      } else {
        for (const name of Object.keys(init)) this.append(name, init[name]);
      }
    }
    append(name, value) {
      [name, value] = [field(name), content(value)];
      const values = this.#map.get(name);
      if (values === undefined) this.#map.set(name, [value]); else values.push(value);
    }
    delete(name) { this.#map.delete(field(name)); }
    get(name) { return this.#map.get(field(name))?.join(", ") ?? null; }
    getSetCookie() { return [...this.#map.get("set-cookie") ?? []]; }
    has(name) { return this.#map.has(field(name)); }
    set(name, value) { this.#map.set(field(name), [content(value)]); }
    forEach(callback, self) { for (const [name, value] of this) callback.call(self, value, name, this); }
    *entries() {
      for (const name of [...this.#map.keys()].sort()) {
        const values = this.#map.get(name);
        if (name === "set-cookie") for (const value of values) yield [name, value]; else yield [name, values.join(", ")];
      }
    }
    *keys() { for (const [name] of this.entries()) yield name; }
    *values() { for (const [, value] of this.entries()) yield value; }
    [Symbol.iterator]() { return this.entries(); }
    get [Symbol.toStringTag]() { return "Headers"; }
  }

  // What a body is made of, and the type that it brings.
  const extract = (body) => {
    if (body instanceof ReadableStream) {
      if (body.locked) throw new TypeError("the body's stream is locked");
      return { stream: body };
    }
    if (body instanceof Blob) return { bytes: body[contents], type: body.type || undefined };
    if (body instanceof ArrayBuffer || ArrayBuffer.isView(body)) return { bytes: asBytes(body).slice() };
    if (body instanceof FormData) return toMultipart(body);
    if (body instanceof URLSearchParams) {
      return { bytes: native.encode(body.toString()), type: "application/x-www-form-urlencoded;charset=UTF-8" };
    }
    return { bytes: native.encode(String(body).toWellFormed()), type: "text/plain;charset=UTF-8" };
  };
  const take = Symbol("take");
  class Body {
    #bytes; #stream; #used = false;
    constructor(body, headers) {
      if (body === undefined || body === null) return;
      const { bytes, stream, type } = extract(body);
      [this.#bytes, this.#stream] = [bytes, stream];
      if (type !== undefined && !headers.has("content-type")) headers.set("content-type", type);
    }
    get body() {
      if (this.#bytes !== undefined && this.#stream === undefined) this.#stream = new Blob([this.#bytes]).stream();
      return this.#stream ?? null;
    }
    get bodyUsed() { return this.#used; }
    // All bytes, once.
    async [take]() {
      if (this.#used || this.#stream?.locked) throw new TypeError("the body was read already");
      this.#used = this.#bytes !== undefined || this.#stream !== undefined;
      if (this.#bytes !== undefined) return this.#bytes;
      if (this.#stream === undefined) return new Uint8Array();
      const parts = [];
      for await (const part of this.#stream) {
        if (!(part instanceof Uint8Array)) throw new TypeError("a body's stream gives Uint8Arrays");
        parts.push(part);
      }
      return joined(parts);
    }
    // The stream that a script made it of, if it is one that nobody has read.
    source() {
      return this.#bytes === undefined && !this.#used && this.#stream?.locked === false ? this.#stream : undefined;
    }
    // Another of the same.
    fork() {
      if (this.#used || this.#stream?.locked) throw new TypeError("the body was read already");
      if (this.#bytes !== undefined || this.#stream === undefined) return this.#bytes;
      const [mine, other] = this.#stream.tee();
      this.#stream = mine;
      return other;
    }
    async bytes() { return (await this[take]()).slice(); }
    async arrayBuffer() { return (await this.bytes()).buffer; }
    async text() { return native.decode(await this[take](), false, false); }
    async json() { return JSON.parse(await this.text()); }
    async blob() { return new Blob([await this[take]()], { type: this.headers.get("content-type") ?? "" }); }
    async formData() { return toForm(await this[take](), this.headers.get("content-type") ?? ""); }
  }
  const { fork, source } = Body.prototype;
  delete Body.prototype.fork;
  delete Body.prototype.source;

  const known = ["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"];
  class Request extends Body {
    #method; #url; #headers; #signal; #redirect;
    constructor(input, init = {}) {
      const from = input instanceof Request ? input : undefined;
      const url = from === undefined ? new URL(input).href : from.url;
      let method = String(init.method ?? from?.method ?? "GET");
      if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(method)) throw new TypeError(`'${method.slice(0, 40)}' is not a method`);
      if (known.includes(method.toUpperCase())) method = method.toUpperCase();
      const headers = new Headers(init.headers ?? from?.headers);
      const body = init.body ?? (from === undefined ? undefined : fork.call(from));
      if (body !== undefined && body !== null && (method === "GET" || method === "HEAD")) throw new TypeError(`a ${method} request has no body`);
      super(body, headers);
      [this.#method, this.#url, this.#headers, this.#redirect] = [method, url, headers, init.redirect ?? "follow"];
      this.#signal = AbortSignal.any([init.signal ?? from?.signal].filter(Boolean));
    }
    get method() { return this.#method; }
    get url() { return this.#url; }
    get headers() { return this.#headers; }
    get signal() { return this.#signal; }
    get redirect() { return this.#redirect; }
    clone() { return new Request(this); }
    get [Symbol.toStringTag]() { return "Request"; }
  }

  class Response extends Body {
    #status; #statusText; #headers; #url = ""; #type = "default";
    constructor(body = null, { status = 200, statusText = "", headers = undefined } = {}) {
      if (!(status >= 200 && status <= 599)) throw new RangeError("a response's status is 200 to 599");
      if (body !== null && body !== undefined && [204, 205, 304].includes(status)) throw new TypeError(`a response of status ${status} has no body`);
      const own = new Headers(headers);
      super(body, own);
      [this.#status, this.#statusText, this.#headers] = [Math.trunc(status), String(statusText), own];
    }
    static json(data, init = {}) {
      const text = JSON.stringify(data);
      if (text === undefined) throw new TypeError("the value has no JSON");
      const headers = new Headers(init.headers);
      if (!headers.has("content-type")) headers.set("content-type", "application/json");
      return new Response(text, { ...init, headers });
    }
    static redirect(url, status = 302) {
      if (![301, 302, 303, 307, 308].includes(status)) throw new RangeError("that is no status of a redirect");
      return new Response(null, { status, headers: { location: new URL(url).href } });
    }
    static error() {
      const response = new Response();
      [response.#status, response.#type] = [0, "error"];
      return response;
    }
    static [take](url, ...given) {
      const response = new Response(...given);
      response.#url = url;
      return response;
    }
    get status() { return this.#status; }
    get statusText() { return this.#statusText; }
    get ok() { return this.#status >= 200 && this.#status < 300; }
    get headers() { return this.#headers; }
    get url() { return this.#url; }
    get type() { return this.#type; }
    get redirected() { return false; }
    clone() { return Response[take](this.#url, fork.call(this), { status: this.#status, statusText: this.#statusText, headers: this.#headers }); }
    get [Symbol.toStringTag]() { return "Response"; }
  }

  // By the host service, which waits: other promises of the call go on afterwards.
  const fetch = async (input, init = undefined) => {
    const request = new Request(input, init);
    request.signal.throwIfAborted();
    const method = request.method.toLowerCase();
    if (!["get", "head", "delete", "post", "put", "patch"].includes(method)) throw new TypeError(`fetch: the host makes no ${request.method} requests`);
    const sent = await request[take]();
    const url = new URL(request.url);
    url.hash = "";
    let reply;
    try {
      reply = http(method, url.href, sent, JSON.stringify([...request.headers]));
    } catch (error) {
      throw new TypeError(`fetch failed: ${error}`);
    }
    const { status, headers, bytes } = reply;
    const pairs = headers === "" ? [] : Object.entries(JSON.parse(headers));
    const empty = method === "head" || [204, 205, 304].includes(status);
    return Response[take](url.href, empty ? null : bytes, { status, headers: pairs });
  };
  for (const one of [Headers, Request, Response, fetch]) provide(one.name, one);
  return { take, source };
}
