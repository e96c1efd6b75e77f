// Blob, File and FormData, and a form as the bytes of a body.
"use strict";
({ provide, native, asBytes }) => {
  const joined = (parts) => {
    const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
    let at = 0;
    for (const part of parts) { all.set(part, at); at += part.length; }
    return all;
  };
  const contents = Symbol("contents");
  const typed = (type) => (/^[\x20-\x7e]*$/.test(type) ? String(type).toLowerCase() : "");

  class Blob {
    #type;
    constructor(parts = [], { type = "" } = {}) {
      if (typeof parts !== "object" || typeof parts[Symbol.iterator] !== "function") throw new TypeError("Blob takes an array of parts");
      const bytes = (part) => part instanceof Blob ? part[contents]
        : part instanceof ArrayBuffer || ArrayBuffer.isView(part) ? asBytes(part).slice() : native.encode(String(part).toWellFormed());
      Object.defineProperty(this, contents, { value: joined([...parts].map(bytes)) });
      this.#type = typed(type);
    }
    get size() { return this[contents].length; }
    get type() { return this.#type; }
    slice(from = 0, to = this.size, type = "") { return new Blob([this[contents].slice(from, to)], { type }); }
    async arrayBuffer() { return this[contents].slice().buffer; }
    async bytes() { return this[contents].slice(); }
    async text() { return native.decode(this[contents], false, false); }
    stream() {
      const bytes = this[contents].slice();
      return new ReadableStream({ start(controller) { if (bytes.length > 0) controller.enqueue(bytes); controller.close(); } });
    }
    get [Symbol.toStringTag]() { return "Blob"; }
  }
  class File extends Blob {
    #name; #lastModified;
    constructor(parts, name, options = {}) {
      if (arguments.length < 2) throw new TypeError("File needs parts and a name");
      super(parts, options);
      [this.#name, this.#lastModified] = [String(name).toWellFormed(), Number(options.lastModified ?? Date.now())];
    }
    get name() { return this.#name; }
    get lastModified() { return this.#lastModified; }
    get [Symbol.toStringTag]() { return "File"; }
  }

  class FormData {
    #entries = [];
    #entry(name, value, filename) {
      name = String(name).toWellFormed();
      if (!(value instanceof Blob)) return [name, String(value).toWellFormed()];
      if (value instanceof File && filename === undefined) return [name, value];
      return [name, new File([value], filename ?? "blob", { type: value.type })];
    }
    append(name, value, filename) { this.#entries.push(this.#entry(name, value, filename)); }
    delete(name) { this.#entries = this.#entries.filter(([one]) => one !== String(name)); }
    get(name) { return this.#entries.find(([one]) => one === String(name))?.[1] ?? null; }
    getAll(name) { return this.#entries.filter(([one]) => one === String(name)).map(([, value]) => value); }
    has(name) { return this.#entries.some(([one]) => one === String(name)); }
    set(name, value, filename) {
      const at = this.#entries.findIndex(([one]) => one === String(name));
      if (at < 0) return this.append(name, value, filename);
      this.#entries[at] = this.#entry(name, value, filename);
      this.#entries = this.#entries.filter(([one], index) => index <= at || one !== String(name));
    }
    forEach(callback, self) { for (const [name, value] of this) callback.call(self, value, name, this); }
    *entries() { for (const [name, value] of this.#entries) yield [name, value]; }
    *keys() { for (const [name] of this.#entries) yield name; }
    *values() { for (const [, value] of this.#entries) yield value; }
    [Symbol.iterator]() { return this.entries(); }
    get [Symbol.toStringTag]() { return "FormData"; }
  }

  const escaped = (name) => name.replace(/\r\n|\r|\n/g, "%0D%0A").replace(/"/g, "%22");
  // A form as `multipart/form-data`.
  const toMultipart = (form) => {
    const boundary = `----form-${crypto.randomUUID()}`;
    const parts = [];
    for (const [name, value] of form) {
      const head = `--${boundary}\r\nContent-Disposition: form-data; name="${escaped(name)}"`;
      if (typeof value === "string") {
        parts.push(native.encode(`${head}\r\n\r\n${value.replace(/\r\n|\r|\n/g, "\r\n")}\r\n`));
      } else {
        const type = value.type || "application/octet-stream";
        parts.push(native.encode(`${head}; filename="${escaped(value.name)}"\r\nContent-Type: ${type}\r\n\r\n`), value[contents], native.encode("\r\n"));
      }
    }
    parts.push(native.encode(`--${boundary}--\r\n`));
    return { bytes: joined(parts), type: `multipart/form-data; boundary=${boundary}` };
  };
  // The form in a body of this type.
  const toForm = (bytes, type) => {
    const form = new FormData();
    if (/^application\/x-www-form-urlencoded\b/i.test(type)) {
      for (const [name, value] of new URLSearchParams(native.decode(bytes, false, false))) form.append(name, value);
      return form;
    }
    const boundary = /^multipart\/form-data\b/i.test(type) ? /;\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))/i.exec(type) : null;
    if (boundary === null) throw new TypeError("the body is no form: its Content-Type is neither urlencoded nor multipart with a boundary");
    for (const [head, begin, end] of JSON.parse(native.multipart(bytes, boundary[1] ?? boundary[2]) ?? broken())) {
      const body = bytes.subarray(begin, end);
      const field = (key) => new RegExp(`;\\s*${key}="([^"]*)"`, "i").exec(head)?.[1].replace(/%0D%0A/gi, "\r\n").replace(/%22/g, '"');
      const [name, filename] = [field("name") ?? broken(), field("filename")];
      const mime = /^content-type:\s*([^\r\n]*)/im.exec(head)?.[1] ?? "text/plain";
      form.append(name, filename === undefined ? native.decode(body, false, false) : new File([body], filename, { type: mime }));
    }
    return form;
  };
  const broken = () => { throw new TypeError("the body is no form: its parts are damaged"); };
  for (const one of [Blob, File, FormData]) provide(one.name, one);
  return { joined, contents, toMultipart, toForm };
}
