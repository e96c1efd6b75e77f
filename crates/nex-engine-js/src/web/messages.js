// Messages between two ports of one function, and the events of the web that tell of them and of failures.
"use strict";
({ provide, timers }) => {
  class MessageEvent extends Event {
    #init;
    constructor(type, init = {}) { super(type, init); this.#init = init; }
    get data() { return this.#init.data ?? null; }
    get origin() { return this.#init.origin ?? ""; }
    get lastEventId() { return this.#init.lastEventId ?? ""; }
    get source() { return this.#init.source ?? null; }
    get ports() { return Object.freeze([...this.#init.ports ?? []]); }
  }
  class ErrorEvent extends Event {
    #init;
    constructor(type, init = {}) { super(type, init); this.#init = init; }
    get message() { return this.#init.message ?? ""; }
    get filename() { return this.#init.filename ?? ""; }
    get lineno() { return this.#init.lineno ?? 0; }
    get colno() { return this.#init.colno ?? 0; }
    get error() { return this.#init.error; }
  }
  class PromiseRejectionEvent extends Event {
    #init;
    constructor(type, init) {
      if (init?.promise === undefined) throw new TypeError("PromiseRejectionEvent needs a promise");
      super(type, init);
      this.#init = init;
    }
    get promise() { return this.#init.promise; }
    get reason() { return this.#init.reason; }
  }

  const made = Symbol("made");
  class MessagePort extends EventTarget {
    #other; #waiting = []; #isOpen = false; #isClosed = false; #handler = null;
    constructor(key) { if (key !== made) throw new TypeError("make a MessageChannel instead"); super(); }
    static join(one, two) { [one.#other, two.#other] = [two, one]; }
    get onmessage() { return this.#handler; }
    set onmessage(handler) { this.#handler = handler; this.start(); }
    postMessage(value, transfer = []) {
      const data = structuredClone(value, Array.isArray(transfer) ? { transfer } : transfer);
      if (!this.#isClosed) this.#other.#take(data);
    }
    #take(data) {
      if (this.#isClosed) return;
      if (!this.#isOpen) { this.#waiting.push(data); return; }
      // In a turn of its own: whoever posts goes on first.
      timers.set(() => { if (!this.#isClosed) this.dispatchEvent(new MessageEvent("message", { data })); }, 0);
    }
    start() {
      this.#isOpen = true;
      for (const data of this.#waiting.splice(0)) this.#take(data);
    }
    close() { this.#isClosed = this.#other.#isClosed = true; }
    get [Symbol.toStringTag]() { return "MessagePort"; }
  }
  const { join } = MessagePort;
  delete MessagePort.join;
  class MessageChannel {
    #ports = [new MessagePort(made), new MessagePort(made)];
    constructor() { join(...this.#ports); }
    get port1() { return this.#ports[0]; }
    get port2() { return this.#ports[1]; }
    get [Symbol.toStringTag]() { return "MessageChannel"; }
  }
  for (const one of [MessageEvent, ErrorEvent, PromiseRejectionEvent, MessagePort, MessageChannel]) provide(one.name, one);
}
