// Web Crypto: random values; what needs keys is made when it is asked for.
"use strict";
({ provide, native, subtle }) => {
  const integers = [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, BigInt64Array, BigUint64Array];
  provide("crypto", Object.freeze({
    get subtle() { return subtle(); },
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
