// TextEncoder and TextDecoder. UTF-8 is the host's work; what a stream cuts off in the middle of a character waits here.
"use strict";
({ provide, native, asBytes }) => {
  provide("TextEncoder", class TextEncoder {
    get encoding() { return "utf-8"; }
    encode(text = "") { return native.encode(String(text).toWellFormed()); }
    encodeInto(text, target) {
      if (!(target instanceof Uint8Array)) throw new TypeError("encodeInto writes into a Uint8Array");
      let [read, written] = [0, 0];
      for (const character of String(text).toWellFormed()) {
        const bytes = native.encode(character);
        if (written + bytes.length > target.length) break;
        target.set(bytes, written);
        written += bytes.length;
        read += character.length;
      }
      return { read, written };
    }
  });

  // Of these a piece may end anywhere: they are decoded when all of it is there. Of others a byte is a character.
  const held = ["gbk", "gb18030", "big5", "euc-jp", "iso-2022-jp", "shift_jis", "euc-kr", "utf-16be"];

  // Bytes at the end that begin a UTF-8 character and may be continued.
  const begun = (bytes) => {
    for (let back = 1; back <= Math.min(3, bytes.length); back++) {
      const byte = bytes[bytes.length - back];
      if ((byte & 0xc0) === 0x80) continue;
      const length = byte >= 0xf0 && byte <= 0xf4 ? 4 : byte >= 0xe0 && byte < 0xf0 ? 3 : byte >= 0xc2 && byte < 0xe0 ? 2 : 1;
      return length > back && canContinue(bytes.subarray(bytes.length - back)) ? back : 0;
    }
    return 0;
  };
  const canContinue = ([first, second]) => second === undefined ||
    !((first === 0xe0 && second < 0xa0) || (first === 0xed && second > 0x9f) || (first === 0xf0 && second < 0x90) || (first === 0xf4 && second > 0x8f));
  const joined = (first, second) => {
    const all = new Uint8Array(first.length + second.length);
    all.set(first);
    all.set(second, first.length);
    return all;
  };

  provide("TextDecoder", class TextDecoder {
    #encoding; #fatal; #ignoreBOM; #left = new Uint8Array(); #started = false;
    constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
      this.#encoding = label === "utf-8" ? label : native.encodingName(String(label).toWellFormed());
      if (this.#encoding === undefined) throw new RangeError(`there is no encoding ${String(label).slice(0, 100)}`);
      [this.#fatal, this.#ignoreBOM] = [Boolean(fatal), Boolean(ignoreBOM)];
    }
    get encoding() { return this.#encoding; }
    get fatal() { return this.#fatal; }
    get ignoreBOM() { return this.#ignoreBOM; }
    decode(input, options = undefined) {
      const stream = Boolean(options?.stream);
      let bytes = asBytes(input);
      if (this.#left.length > 0) bytes = joined(this.#left, bytes);
      this.#left = new Uint8Array();
      if (stream) {
        const back = this.#encoding === "utf-8" ? begun(bytes) : this.#encoding === "utf-16le" ? wide(bytes) : held.includes(this.#encoding) ? bytes.length : 0;
        this.#left = bytes.slice(bytes.length - back);
        bytes = bytes.subarray(0, bytes.length - back);
      }
      const keepsMark = this.#ignoreBOM || this.#started;
      const text = this.#encoding === "utf-8" ? native.decode(bytes, this.#fatal, keepsMark)
        : this.#encoding === "utf-16le" ? this.#utf16(bytes, keepsMark) : this.#other(bytes, keepsMark);
      this.#started = stream && (this.#started || bytes.length > 0);
      if (text === undefined) {
        [this.#left, this.#started] = [new Uint8Array(), false];
        throw new TypeError(`bytes are not valid ${this.#encoding}`);
      }
      return text;
    }
    #other(bytes, keepsMark) {
      const text = native.decodeAs(this.#encoding, bytes, this.#fatal);
      return !keepsMark && this.#encoding === "utf-16be" && text?.startsWith("\ufeff") ? text.slice(1) : text;
    }
    #utf16(bytes, keepsMark) {
      const parts = [];
      for (let at = 0; at + 1 < bytes.length; at += 8192) {
        const units = [];
        for (let i = at; i + 1 < Math.min(at + 8192, bytes.length); i += 2) units.push(bytes[i] | (bytes[i + 1] << 8));
        parts.push(String.fromCharCode(...units));
      }
      let text = parts.join("");
      if (this.#fatal && (bytes.length % 2 === 1 || !text.isWellFormed())) return undefined;
      if (bytes.length % 2 === 1) text += "\ufffd";
      if (!keepsMark && text.startsWith("\ufeff")) text = text.slice(1);
      return text.toWellFormed();
    }
  });
  // Bytes at the end that are half a UTF-16 unit, or half a pair of them.
  const wide = (bytes) => {
    const odd = bytes.length % 2;
    const high = bytes.length - odd >= 2 && (bytes[bytes.length - odd - 1] & 0xfc) === 0xd8;
    return odd + (high ? 2 : 0);
  };
}
