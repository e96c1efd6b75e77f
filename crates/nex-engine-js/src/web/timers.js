// Timers, which run only while a call waits for its promise and never outlive it; structuredClone; what else hangs on the global object.
"use strict";
({ provide, native }) => {
  const timers = new Map();
  let last = 0;
  const set = (callback, delay, args = [], every = undefined) => {
    if (typeof callback !== "function") throw new TypeError("a timer needs a function");
    delay = Math.max(0, Number(delay) || 0);
    timers.set(++last, { due: native.now() + delay, callback, args, every: every && Math.max(1, delay) });
    return last;
  };
  const clear = (timer) => void timers.delete(timer);
  provide("setTimeout", (callback, delay = 0, ...args) => set(callback, delay, args));
  provide("setInterval", (callback, delay = 0, ...args) => set(callback, delay, args, true));
  provide("clearTimeout", clear);
  provide("clearInterval", clear);
  // Runs the first timer if it is due; tells how many milliseconds it has yet, -1 when there is none.
  const tick = () => {
    let first;
    for (const entry of timers) if (first === undefined || entry[1].due < first[1].due) first = entry;
    if (first === undefined) return -1;
    const [timer, { due, callback, args, every }] = first;
    const left = due - native.now();
    if (left > 0) return left;
    timers.delete(timer);
    if (every !== undefined) timers.set(timer, { due: native.now() + every, callback, args, every });
    callback(...args);
    return 0;
  };

  const uncloneable = (what) => new DOMException(`${what} cannot be cloned`, "DataCloneError");
  const errors = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
  const clone = (value, seen) => {
    if (typeof value === "symbol" || typeof value === "function") throw uncloneable(`a ${typeof value}`);
    if (typeof value !== "object" || value === null) return value;
    if (seen.has(value)) return seen.get(value);
    const keep = (copy) => { seen.set(value, copy); return copy; };
    const kind = Object.prototype.toString.call(value);
    if (value instanceof Boolean || value instanceof Number || value instanceof String || value instanceof BigInt) return keep(Object(value.valueOf()));
    if (value instanceof Date) return keep(new Date(value.getTime()));
    if (value instanceof RegExp) return keep(new RegExp(value.source, value.flags));
    if (value instanceof ArrayBuffer) return keep(value.slice(0));
    if (ArrayBuffer.isView(value)) {
      const buffer = clone(value.buffer, seen);
      return keep(value instanceof DataView
        ? new DataView(buffer, value.byteOffset, value.byteLength)
        : new globalThis[value[Symbol.toStringTag]](buffer, value.byteOffset, value.length));
    }
    if (value instanceof Map) {
      const [copy, entries] = [keep(new Map()), [...value]];
      for (const [key, one] of entries) copy.set(clone(key, seen), clone(one, seen));
      return copy;
    }
    if (value instanceof Set) {
      const [copy, all] = [keep(new Set()), [...value]];
      for (const one of all) copy.add(clone(one, seen));
      return copy;
    }
    if (value instanceof Error) {
      const name = Object.hasOwn(errors, value.name) ? value.name : "Error";
      const copy = keep(Object.create(errors[name].prototype));
      const own = (key) => { if (Object.hasOwn(value, key)) Object.defineProperty(copy, key, { value: clone(value[key], seen), writable: true, configurable: true }); };
      ["message", "stack", "cause"].forEach(own);
      return copy;
    }
    if (value instanceof Promise || value instanceof WeakMap || value instanceof WeakSet || value instanceof WeakRef || kind === "[object Generator]") {
      throw uncloneable(kind.slice(8, -1));
    }
    const copy = keep(Array.isArray(value) ? new Array(value.length) : {});
    for (const key of Object.keys(value)) Object.defineProperty(copy, key, { value: clone(value[key], seen), writable: true, enumerable: true, configurable: true });
    return copy;
  };
  provide("structuredClone", (value, { transfer = [] } = {}) => {
    const [moved, seen] = [[...transfer], new Map()];
    for (const one of moved) {
      if (!(one instanceof ArrayBuffer)) throw uncloneable("what is no ArrayBuffer, and so not to be moved,");
      seen.set(one, one.slice(0));
    }
    const copy = clone(value, seen);
    for (const one of moved) one.transfer();
    return copy;
  });

  provide("self", globalThis);
  provide("navigator", Object.freeze({ userAgent: "nex" }));
  provide("reportError", (error) => console.error(error));
  return { tick, set };
}
