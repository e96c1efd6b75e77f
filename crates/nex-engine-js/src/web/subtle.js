// crypto.subtle: digests, signatures, AES-GCM and derivation. The host computes; a key on a curve or of RSA is kept as the text of a JWK.
"use strict";
({ provide, native, asBytes }) => {
  const fail = (name, why) => { throw new DOMException(why, name); };
  const blocks = { "SHA-1": 64, "SHA-256": 64, "SHA-384": 128, "SHA-512": 128 };
  const curves = { "P-256": "SHA-256", "P-384": "SHA-384" };
  const signs = ["sign", "verify"];
  // Of each algorithm: what its keys are for, a private one and the public one apart, and which formats they have.
  const all = {
    "HMAC": { secret: signs, formats: ["raw", "jwk"] },
    "AES-GCM": { secret: ["encrypt", "decrypt", "wrapKey", "unwrapKey"], formats: ["raw", "jwk"] },
    "PBKDF2": { secret: ["deriveKey", "deriveBits"], formats: ["raw"] },
    "HKDF": { secret: ["deriveKey", "deriveBits"], formats: ["raw"] },
    "RSASSA-PKCS1-v1_5": { private: ["sign"], public: ["verify"], formats: ["spki", "pkcs8", "jwk"], jwk: { "SHA-256": "RS256", "SHA-384": "RS384", "SHA-512": "RS512" } },
    "RSA-PSS": { private: ["sign"], public: ["verify"], formats: ["spki", "pkcs8", "jwk"], jwk: { "SHA-256": "PS256", "SHA-384": "PS384", "SHA-512": "PS512" } },
    "ECDSA": { private: ["sign"], public: ["verify"], formats: ["raw", "spki", "pkcs8", "jwk"] },
    "Ed25519": { private: ["sign"], public: ["verify"], formats: ["raw", "spki", "pkcs8", "jwk"] },
  };
  const nameOf = (algorithm) => String(typeof algorithm === "object" && algorithm !== null ? algorithm.name : algorithm);
  const named = (algorithm) => {
    const name = nameOf(algorithm);
    return Object.keys(all).find((one) => one.toUpperCase() === name.toUpperCase())
      ?? fail("NotSupportedError", `there is no ${name.slice(0, 100)}: use one of ${Object.keys(all).join(", ")}`);
  };
  const hashOf = (algorithm) => {
    const name = nameOf(algorithm).toUpperCase();
    return Object.hasOwn(blocks, name) ? name : fail("NotSupportedError", `there is no ${name.slice(0, 100)}: use SHA-1, SHA-256, SHA-384 or SHA-512`);
  };
  const curveOf = (name) => (Object.hasOwn(curves, name) ? name : fail("NotSupportedError", `there is no curve ${String(name).slice(0, 100)}: use P-256 or P-384`));
  const kindOf = ({ name, namedCurve }) => (name === "ECDSA" ? namedCurve : name === "Ed25519" ? name : "RSA");
  const base64url = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const fromBase64url = (text) => Uint8Array.from(atob(String(text).replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));

  const secret = Symbol("secret");
  class CryptoKey {
    #material; #type; #algorithm; #extractable; #usages;
    constructor(key, type, material, algorithm, extractable, usages) {
      if (key !== secret) throw new TypeError("make a key by crypto.subtle");
      [this.#type, this.#material, this.#algorithm] = [type, material, Object.freeze(algorithm)];
      [this.#extractable, this.#usages] = [Boolean(extractable), Object.freeze([...new Set(usages)])];
    }
    get type() { return this.#type; }
    get algorithm() { return this.#algorithm; }
    get extractable() { return this.#extractable; }
    get usages() { return this.#usages; }
    static materialFor(key, usage, algorithm) {
      if (!(key instanceof CryptoKey)) throw new TypeError("that is no CryptoKey");
      if (key.#algorithm.name !== named(algorithm)) fail("InvalidAccessError", `the key is one of ${key.#algorithm.name}`);
      if (!key.#usages.includes(usage)) fail("InvalidAccessError", `the key's usages have no ${usage}`);
      return key.#material;
    }
    static exported(key) {
      if (!(key instanceof CryptoKey)) throw new TypeError("that is no CryptoKey");
      if (!key.#extractable) fail("InvalidAccessError", "the key is not extractable");
      return key.#material;
    }
    get [Symbol.toStringTag]() { return "CryptoKey"; }
  }
  const { materialFor, exported } = CryptoKey;
  delete CryptoKey.materialFor;
  delete CryptoKey.exported;

  const made = (type, material, algorithm, extractable, usages) => {
    const [wanted, possible] = [[...usages], all[algorithm.name][type] ?? []];
    if (wanted.some((usage) => !possible.includes(usage))) throw new SyntaxError(`a ${type} key of ${algorithm.name} is for ${possible.join(", ")}`);
    if (type !== "public" && wanted.length === 0) throw new SyntaxError("a key without usages is of no use");
    return new CryptoKey(secret, type, material, algorithm, extractable, wanted);
  };
  const ofSecret = (bytes, algorithm, extractable, usages) => {
    const name = named(algorithm);
    switch (name) {
      case "HMAC":
        if (bytes.length === 0) fail("DataError", "an HMAC key has at least one byte");
        return made("secret", bytes, { name, hash: Object.freeze({ name: hashOf(algorithm.hash) }), length: bytes.length * 8 }, extractable, usages);
      case "AES-GCM":
        if (bytes.length === 24) fail("NotSupportedError", "AES keys have 128 or 256 bits here");
        if (bytes.length !== 16 && bytes.length !== 32) fail("DataError", "AES keys have 128 or 256 bits");
        return made("secret", bytes, { name, length: bytes.length * 8 }, extractable, usages);
      default:
        if (extractable) throw new SyntaxError(`keys of ${name} are not extractable`);
        return made("secret", bytes, { name }, false, usages);
    }
  };
  // A key of RSA or on a curve, of the text of its JWK.
  const ofPair = (text, algorithm, extractable, usages) => {
    const [name, jwk] = [named(algorithm), JSON.parse(text)];
    const type = jwk.d === undefined ? "public" : "private";
    if (name === "Ed25519") return made(type, text, { name }, extractable, usages);
    if (name === "ECDSA") return made(type, text, { name, namedCurve: jwk.crv }, extractable, usages);
    const [n, publicExponent] = [fromBase64url(jwk.n), fromBase64url(jwk.e)];
    const modulusLength = n.length * 8 - Math.clz32(n[0]) + 24;
    return made(type, text, { name, modulusLength, publicExponent, hash: Object.freeze({ name: hashOf(algorithm.hash) }) }, extractable, usages);
  };
  const publicOf = (text) => {
    const { kty, crv, n, e, x, y } = JSON.parse(text);
    return JSON.stringify({ kty, crv, n, e, x, y });
  };

  // The parameters of a signature: its hash, which RSA keys have and ECDSA is told.
  const hashFor = (algorithm, key) => {
    const { name, namedCurve, hash } = key.algorithm;
    if (name === "ECDSA" && hashOf(algorithm.hash) !== curves[namedCurve]) fail("NotSupportedError", `${namedCurve} signs with ${curves[namedCurve]} here`);
    if (name === "RSA-PSS" && Number(algorithm.saltLength) !== { "SHA-256": 32, "SHA-384": 48, "SHA-512": 64 }[hash.name]) {
      fail("NotSupportedError", "RSA-PSS has a salt as long as its hash here");
    }
    if (hash?.name === "SHA-1" && name !== "HMAC") fail("NotSupportedError", "nothing is signed with SHA-1");
    return hash?.name ?? "";
  };
  const cipher = (seals, { iv, additionalData, tagLength = 128 }, key, data) => {
    if (asBytes(iv).length !== 12 || tagLength !== 128) fail("NotSupportedError", "AES-GCM has 12 bytes of iv and a tag of 128 bits here");
    const done = native.aesGcm(seals, key, asBytes(iv), asBytes(additionalData), asBytes(data));
    return done?.buffer ?? fail("OperationError", seals ? "the data is too long" : "the data was not encrypted so");
  };
  const derived = (algorithm, key, bits) => {
    if (bits === null || bits === 0 || bits % 8 !== 0 || bits > 65_536) fail("OperationError", "as many bits are derived as are asked for: whole bytes, at most 8192");
    const [name, hash, salt] = [named(algorithm), hashOf(algorithm.hash), asBytes(algorithm.salt)];
    const rounds = Number(algorithm.iterations);
    if (name === "PBKDF2" && !(rounds >= 1)) fail("OperationError", "PBKDF2 has at least one round");
    const by = { HKDF: () => native.hkdf(hash, key, salt, asBytes(algorithm.info), bits / 8), PBKDF2: () => native.pbkdf2(hash, key, salt, rounds, bits / 8) };
    let bytes;
    try { bytes = by[name](); } catch (why) { fail("OperationError", String(why)); }
    return bytes ?? fail("OperationError", "so many bits cannot be derived");
  };

  const subtle = Object.freeze({
    async digest(algorithm, data) { return native.digest(hashOf(algorithm), asBytes(data)).buffer; },
    async importKey(format, data, algorithm, extractable, usages) {
      const name = named(algorithm);
      if (!all[name].formats.includes(format)) fail("NotSupportedError", `keys of ${name} are ${all[name].formats.join(", ")}, not ${String(format).slice(0, 100)}`);
      if (format === "jwk" && typeof (data ??= {}) !== "object") throw new TypeError("a JWK is an object");
      if (all[name].secret !== undefined) {
        if (format === "raw") return ofSecret(asBytes(data).slice(), algorithm, extractable, usages);
        if (data.kty !== "oct" || typeof data.k !== "string") fail("DataError", "the JWK is no secret key");
        return ofSecret(fromBase64url(data.k), algorithm, extractable, usages);
      }
      const kind = kindOf({ name, namedCurve: name === "ECDSA" ? curveOf(algorithm.namedCurve) : undefined });
      const { kty, crv, n, e, d, p, q, dp, dq, qi, x, y } = data;
      const key = format === "jwk" ? JSON.stringify({ kty, crv, n, e, d, p, q, dp, dq, qi, x, y }) : asBytes(data);
      return ofPair(native.keyImport(format, kind, key) ?? fail("DataError", `that is no ${format} of ${kind}`), algorithm, extractable, usages);
    },
    async generateKey(algorithm, extractable, usages) {
      const name = named(algorithm);
      if (name === "HMAC") {
        const length = algorithm.length === undefined ? blocks[hashOf(algorithm.hash)] : Math.ceil(algorithm.length / 8);
        return ofSecret(native.randomBytes(length), algorithm, extractable, usages);
      }
      if (name === "AES-GCM") return ofSecret(native.randomBytes(Number(algorithm.length) / 8), algorithm, extractable, usages);
      if (name !== "ECDSA" && name !== "Ed25519") fail("NotSupportedError", `keys of ${name} are imported, not generated`);
      native.randomBytes(0);
      const text = native.keyGenerate(name === "ECDSA" ? curveOf(algorithm.namedCurve) : name);
      const [mine, others] = [usages.filter((usage) => usage !== "verify"), usages.filter((usage) => usage === "verify")];
      return { privateKey: ofPair(text, algorithm, extractable, mine), publicKey: ofPair(publicOf(text), algorithm, true, others) };
    },
    async exportKey(format, key) {
      const [material, { name, hash, length }] = [exported(key), key.algorithm];
      if (!all[name].formats.includes(format)) fail("NotSupportedError", `keys of ${name} are ${all[name].formats.join(", ")}, not ${String(format).slice(0, 100)}`);
      const told = { key_ops: [...key.usages], ext: key.extractable };
      if (key.type === "secret") {
        if (format === "raw") return material.slice().buffer;
        return { kty: "oct", k: base64url(material), alg: name === "HMAC" ? `HS${hash.name.slice(4)}` : `A${length}GCM`, ...told };
      }
      if (format === "jwk") return { ...JSON.parse(material), ...(all[name].jwk === undefined ? {} : { alg: all[name].jwk[hash.name] }), ...told };
      if ((format === "pkcs8") !== (key.type === "private")) fail("InvalidAccessError", `a ${key.type} key is no ${format}`);
      return native.keyExport(format, kindOf(key.algorithm), material).buffer;
    },
    async sign(algorithm, key, data) {
      const material = materialFor(key, "sign", algorithm);
      const hash = hashFor(algorithm, key);
      if (key.type === "secret") return native.hmac(hash, material, asBytes(data)).buffer;
      const signature = native.sign(key.algorithm.name, hash, kindOf(key.algorithm), material, asBytes(data));
      return signature?.buffer ?? fail("OperationError", "the key does not sign: its parts do not fit, or it is too short");
    },
    async verify(algorithm, key, signature, data) {
      const [material, given] = [materialFor(key, "verify", algorithm), asBytes(signature)];
      const hash = hashFor(algorithm, key);
      if (key.type !== "secret") return native.verify(key.algorithm.name, hash, kindOf(key.algorithm), material, given, asBytes(data)) === 1;
      const right = native.hmac(hash, material, asBytes(data));
      // All bytes are looked at, so that time does not tell how many are right.
      let difference = given.length ^ right.length;
      for (let at = 0; at < right.length; at++) difference |= right[at] ^ (given[at] ?? 0);
      return difference === 0;
    },
    async encrypt(algorithm, key, data) { return cipher(true, algorithm, materialFor(key, "encrypt", algorithm), data); },
    async decrypt(algorithm, key, data) { return cipher(false, algorithm, materialFor(key, "decrypt", algorithm), data); },
    async deriveBits(algorithm, key, bits) { return derived(algorithm, materialFor(key, "deriveBits", algorithm), bits).buffer; },
    async deriveKey(algorithm, key, wanted, extractable, usages) {
      const length = wanted.length ?? (named(wanted) === "HMAC" ? blocks[hashOf(wanted.hash)] * 8 : 0);
      return ofSecret(derived(algorithm, materialFor(key, "deriveKey", algorithm), length), wanted, extractable, usages);
    },
  });
  provide("CryptoKey", CryptoKey);
  return { subtle };
}
