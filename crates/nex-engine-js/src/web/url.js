// URL and URLSearchParams. The host parses; a URL here is its text and where its parts are.
"use strict";
({ provide, native }) => {
  const listen = Symbol("listen");
  const text = (value) => String(value).toWellFormed();

  class URLSearchParams {
    #pairs = []; #changed = () => {};
    constructor(init = "") {
      if (typeof init === "object" && init !== null || typeof init === "function") {
        if (typeof init[Symbol.iterator] === "function") {
          for (const pair of init) {
            const both = [...pair];
            if (both.length !== 2) throw new TypeError("URLSearchParams takes pairs of a name and a value");
            this.#pairs.push(both.map(text));
          }
        } else {
          for (const name of Reflect.ownKeys(init)) {
            if (typeof name === "string" && Object.getOwnPropertyDescriptor(init, name)?.enumerable) this.#pairs.push([text(name), text(init[name])]);
          }
        }
      } else {
        this.#read(text(init));
      }
    }
    #read(query) { this.#pairs = JSON.parse(native.queryParse(query.startsWith("?") ? query.slice(1) : query)); }
    // Of the URL that this belongs to.
    [listen](query, changed) { this.#read(query); this.#changed = changed; }
    get size() { return this.#pairs.length; }
    append(name, value) { this.#pairs.push([text(name), text(value)]); this.#changed(); }
    delete(name, value) {
      const gone = value === undefined ? ([n]) => n === text(name) : ([n, v]) => n === text(name) && v === text(value);
      this.#pairs = this.#pairs.filter((pair) => !gone(pair));
      this.#changed();
    }
    get(name) { return this.#pairs.find(([n]) => n === text(name))?.[1] ?? null; }
    getAll(name) { return this.#pairs.filter(([n]) => n === text(name)).map(([, value]) => value); }
    has(name, value) { return this.#pairs.some(([n, v]) => n === text(name) && (value === undefined || v === text(value))); }
    set(name, value) {
      const first = this.#pairs.findIndex(([n]) => n === text(name));
      if (first < 0) return this.append(name, value);
      this.#pairs[first][1] = text(value);
      this.#pairs = this.#pairs.filter(([n], at) => at <= first || n !== text(name));
      this.#changed();
    }
    sort() {
      this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
      this.#changed();
    }
    forEach(callback, self) { for (const [name, value] of this) callback.call(self, value, name, this); }
    *entries() { for (let at = 0; at < this.#pairs.length; at++) yield [...this.#pairs[at]]; }
    *keys() { for (const [name] of this.entries()) yield name; }
    *values() { for (const [, value] of this.entries()) yield value; }
    [Symbol.iterator]() { return this.entries(); }
    toString() { return native.queryWrite(JSON.stringify(this.#pairs)); }
    get [Symbol.toStringTag]() { return "URLSearchParams"; }
  }

  const parts = ["protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"];
  class URL {
    #parts; #query;
    constructor(url, base = undefined) {
      const found = native.urlParse(text(url), base === undefined ? undefined : text(base));
      if (found === undefined) throw new TypeError(`Invalid URL: ${text(url).slice(0, 200)}`);
      this.#parts = JSON.parse(found);
    }
    static parse(url, base = undefined) { try { return new URL(url, base); } catch { return null; } }
    static canParse(url, base = undefined) { return native.urlParse(text(url), base === undefined ? undefined : text(base)) !== undefined; }
    get href() { return this.#parts.href; }
    set href(url) {
      this.#parts = new URL(url).#parts;
      this.#query?.[listen](this.#parts.search, () => this.#write());
    }
    get origin() { return this.#parts.origin; }
    get searchParams() {
      if (this.#query === undefined) {
        this.#query = new URLSearchParams();
        this.#query[listen](this.#parts.search, () => this.#write());
      }
      return this.#query;
    }
    #write() { this.#parts = JSON.parse(native.urlSet(this.#parts.href, "search", this.#query.toString())); }
    toString() { return this.href; }
    toJSON() { return this.href; }
    get [Symbol.toStringTag]() { return "URL"; }
    static {
      for (const part of parts) {
        Object.defineProperty(URL.prototype, part, {
          configurable: true,
          enumerable: true,
          get() { return this.#parts[part]; },
          set(value) {
            this.#parts = JSON.parse(native.urlSet(this.#parts.href, part, text(value)));
            if (part === "search") this.#query?.[listen](this.#parts.search, () => this.#write());
          },
        });
      }
    }
  }
  provide("URL", URL);
  provide("URLSearchParams", URLSearchParams);
}
