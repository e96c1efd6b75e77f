// Web Crypto: random values, digests, HMAC. The host computes.
"use strict";
({ provide, native, asBytes }) => {
  const integers = [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, BigInt64Array, BigUint64Array];
  const blocks = { "SHA-1": 64, "SHA-256": 64, "SHA-384": 128, "SHA-512": 128 };
  const hashName = (algorithm) => {
    const name = String(typeof algorithm === "object" && algorithm !== null ? algorithm.name : algorithm).toUpperCase();
    if (!Object.hasOwn(blocks, name)) throw new DOMException(`there is no ${name}: use SHA-1, SHA-256, SHA-384 or SHA-512`, "NotSupportedError");
    return name;
  };
  const isHmac = (algorithm) => {
    const name = String(typeof algorithm === "object" && algorithm !== null ? algorithm.name : algorithm).toUpperCase();
    if (name !== "HMAC") throw new DOMException(`there is no ${name}: subtle knows HMAC and digests`, "NotSupportedError");
  };
  const secret = Symbol("secret");
  class CryptoKey {
    #bytes; #algorithm; #extractable; #usages;
    constructor(key, bytes, hash, extractable, usages) {
      if (key !== secret) throw new TypeError("make a key by crypto.subtle");
      this.#bytes = bytes;
      this.#algorithm = Object.freeze({ name: "HMAC", hash: Object.freeze({ name: hash }), length: bytes.length * 8 });
      [this.#extractable, this.#usages] = [Boolean(extractable), Object.freeze([...new Set(usages)])];
    }
    get type() { return "secret"; }
    get algorithm() { return this.#algorithm; }
    get extractable() { return this.#extractable; }
    get usages() { return this.#usages; }
    static bytesFor(key, usage) {
      if (!(key instanceof CryptoKey)) throw new TypeError("that is no CryptoKey");
      if (!key.#usages.includes(usage)) throw new DOMException(`the key's usages have no ${usage}`, "InvalidAccessError");
      return key.#bytes;
    }
    static raw(key) {
      if (!(key instanceof CryptoKey)) throw new TypeError("that is no CryptoKey");
      if (!key.#extractable) throw new DOMException("the key is not extractable", "InvalidAccessError");
      return key.#bytes.slice();
    }
    get [Symbol.toStringTag]() { return "CryptoKey"; }
  }
  const { bytesFor, raw } = CryptoKey;
  delete CryptoKey.bytesFor;
  delete CryptoKey.raw;

  const made = (bytes, algorithm, extractable, usages) => {
    const all = [...usages];
    if (all.length === 0 || all.some((usage) => usage !== "sign" && usage !== "verify")) throw new SyntaxError("an HMAC key signs and verifies");
    if (bytes.length === 0) throw new DOMException("an HMAC key has at least one byte", "DataError");
    return new CryptoKey(secret, bytes, hashName(algorithm.hash), extractable, all);
  };
  const base64url = (bytes) => {
    const parts = Array.from(bytes, (byte) => String.fromCharCode(byte));
    return btoa(parts.join("")).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  };
  const fromBase64url = (text) => Uint8Array.from(atob(String(text).replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));

  const subtle = Object.freeze({
    async digest(algorithm, data) { return native.digest(hashName(algorithm), asBytes(data)).buffer; },
    async importKey(format, data, algorithm, extractable, usages) {
      isHmac(algorithm);
      if (format === "raw") return made(asBytes(data).slice(), algorithm, extractable, usages);
      if (format !== "jwk") throw new DOMException(`keys are raw or jwk, not ${format}`, "NotSupportedError");
      if (data?.kty !== "oct" || typeof data.k !== "string") throw new DOMException("the JWK is no secret key", "DataError");
      return made(fromBase64url(data.k), algorithm, extractable, usages);
    },
    async generateKey(algorithm, extractable, usages) {
      isHmac(algorithm);
      const length = algorithm.length === undefined ? blocks[hashName(algorithm.hash)] : Math.ceil(algorithm.length / 8);
      return made(native.randomBytes(length), algorithm, extractable, usages);
    },
    async exportKey(format, key) {
      const bytes = raw(key);
      if (format === "raw") return bytes.buffer;
      if (format !== "jwk") throw new DOMException(`keys are raw or jwk, not ${format}`, "NotSupportedError");
      const alg = `HS${key.algorithm.hash.name.slice(4)}`;
      return { kty: "oct", k: base64url(bytes), alg, key_ops: [...key.usages], ext: key.extractable };
    },
    async sign(algorithm, key, data) {
      isHmac(algorithm);
      return native.hmac(key.algorithm.hash.name, bytesFor(key, "sign"), asBytes(data)).buffer;
    },
    async verify(algorithm, key, signature, data) {
      isHmac(algorithm);
      const [given, right] = [asBytes(signature), native.hmac(key.algorithm.hash.name, bytesFor(key, "verify"), asBytes(data))];
      // All bytes are looked at, so that time does not tell how many are right.
      let difference = given.length ^ right.length;
      for (let at = 0; at < right.length; at++) difference |= right[at] ^ (given[at] ?? 0);
      return difference === 0;
    },
  });

  provide("CryptoKey", CryptoKey);
  provide("crypto", Object.freeze({
    subtle,
    getRandomValues(array) {
      if (!integers.some((type) => array instanceof type)) throw new TypeError("crypto.getRandomValues fills an array of integers");
      if (array.byteLength > 65536) throw new DOMException("crypto.getRandomValues fills at most 65536 bytes at once", "QuotaExceededError");
      new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(native.randomBytes(array.byteLength));
      return array;
    },
    randomUUID() {
      const bytes = native.randomBytes(16);
      bytes[6] = (bytes[6] & 0x0f) | 0x40;
      bytes[8] = (bytes[8] & 0x3f) | 0x80;
      const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
      return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
    },
  }));
}
