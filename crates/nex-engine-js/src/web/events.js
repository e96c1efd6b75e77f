// Events and their cancellation: Event, CustomEvent, EventTarget, AbortController, AbortSignal.
"use strict";
({ provide, timers }) => {
  const state = new WeakMap();

  class Event {
    #type; #bubbles; #cancelable; #composed; #timeStamp;
    constructor(type, { bubbles = false, cancelable = false, composed = false } = {}) {
      if (arguments.length === 0) throw new TypeError("Event needs a type");
      [this.#type, this.#bubbles, this.#cancelable, this.#composed] = [String(type), Boolean(bubbles), Boolean(cancelable), Boolean(composed)];
      this.#timeStamp = performance.now();
      state.set(this, { target: null, phase: 0, prevented: false, passive: false, stopped: false, stoppedNow: false, running: false });
    }
    get type() { return this.#type; }
    get bubbles() { return this.#bubbles; }
    get cancelable() { return this.#cancelable; }
    get composed() { return this.#composed; }
    get timeStamp() { return this.#timeStamp; }
    get isTrusted() { return false; }
    get target() { return state.get(this).target; }
    get srcElement() { return state.get(this).target; }
    get currentTarget() { return state.get(this).phase === 0 ? null : state.get(this).target; }
    get eventPhase() { return state.get(this).phase; }
    get defaultPrevented() { return state.get(this).prevented; }
    get returnValue() { return !state.get(this).prevented; }
    get cancelBubble() { return state.get(this).stopped; }
    set cancelBubble(stop) { if (stop) this.stopPropagation(); }
    composedPath() { return this.currentTarget === null ? [] : [this.currentTarget]; }
    stopPropagation() { state.get(this).stopped = true; }
    stopImmediatePropagation() { state.get(this).stopped = state.get(this).stoppedNow = true; }
    preventDefault() { if (this.#cancelable && !state.get(this).passive) state.get(this).prevented = true; }
    get [Symbol.toStringTag]() { return "Event"; }
    static NONE = 0; static CAPTURING_PHASE = 1; static AT_TARGET = 2; static BUBBLING_PHASE = 3;
  }

  class CustomEvent extends Event {
    #detail;
    constructor(type, options = {}) { super(type, options); this.#detail = options.detail ?? null; }
    get detail() { return this.#detail; }
  }

  class EventTarget {
    #listeners = [];
    addEventListener(type, callback, options = {}) {
      const { capture, once, passive, signal } = typeof options === "boolean" ? { capture: options } : options ?? {};
      if (callback === null || callback === undefined || signal?.aborted) return;
      if (typeof callback !== "function" && typeof callback !== "object") throw new TypeError("a listener is a function or an object");
      type = String(type);
      if (this.#find(type, callback, Boolean(capture)) !== undefined) return;
      this.#listeners.push({ type, callback, capture: Boolean(capture), once: Boolean(once), passive: Boolean(passive), removed: false });
      signal?.addEventListener("abort", () => this.removeEventListener(type, callback, { capture }), { once: true });
    }
    removeEventListener(type, callback, options = {}) {
      const capture = Boolean(typeof options === "boolean" ? options : options?.capture);
      const listener = this.#find(String(type), callback, capture);
      if (listener === undefined) return;
      listener.removed = true;
      this.#listeners = this.#listeners.filter((other) => other !== listener);
    }
    #find(type, callback, capture) {
      return this.#listeners.find((one) => one.type === type && one.callback === callback && one.capture === capture);
    }
    dispatchEvent(event) {
      const now = state.get(event);
      if (now === undefined) throw new TypeError("dispatchEvent needs an Event");
      if (now.running) throw new DOMException("the event is being dispatched", "InvalidStateError");
      [now.target, now.phase, now.running] = [this, 2, true];
      try {
        if (!now.stopped) this.#tell(event, now);
      } finally {
        [now.phase, now.running, now.stopped, now.stoppedNow] = [0, false, false, false];
      }
      return !now.prevented;
    }
    #tell(event, now) {
      const handler = this[`on${event.type}`];
      if (typeof handler === "function") guarded(() => handler.call(this, event));
      const matching = this.#listeners.filter(({ type }) => type === event.type);
      for (const listener of [...matching.filter((one) => one.capture), ...matching.filter((one) => !one.capture)]) {
        if (now.stoppedNow) return;
        if (listener.removed) continue;
        if (listener.once) this.removeEventListener(listener.type, listener.callback, { capture: listener.capture });
        now.passive = listener.passive;
        const { callback } = listener;
        guarded(() => typeof callback === "function" ? callback.call(this, event) : callback.handleEvent(event));
        now.passive = false;
      }
    }
  }
  // An exception of one listener does not keep the others from hearing of the event.
  const guarded = (run) => { try { run(); } catch (error) { console.error(error); } };

  const abort = Symbol("abort");
  class AbortSignal extends EventTarget {
    #reason; #aborted = false; #dependents = [];
    onabort = null;
    constructor(key) { if (key !== abort) throw new TypeError("make an AbortController instead"); super(); }
    get aborted() { return this.#aborted; }
    get reason() { return this.#reason; }
    throwIfAborted() { if (this.#aborted) throw this.#reason; }
    [abort](reason) {
      if (this.#aborted) return;
      [this.#aborted, this.#reason] = [true, reason === undefined ? new DOMException("the operation was aborted", "AbortError") : reason];
      this.dispatchEvent(new Event("abort"));
      for (const dependent of this.#dependents) dependent[abort](this.#reason);
    }
    static abort(reason) { const signal = new AbortSignal(abort); signal[abort](reason); return signal; }
    static timeout(delay) {
      const signal = new AbortSignal(abort);
      timers.set(() => signal[abort](new DOMException("the operation timed out", "TimeoutError")), delay);
      return signal;
    }
    static any(signals) {
      const [all, any] = [[...signals], new AbortSignal(abort)];
      const first = all.find((signal) => signal.aborted);
      if (first !== undefined) any[abort](first.reason);
      else for (const signal of all) signal.#dependents.push(any);
      return any;
    }
  }
  class AbortController {
    #signal = new AbortSignal(abort);
    get signal() { return this.#signal; }
    abort(reason) { this.#signal[abort](reason); }
  }
  for (const one of [Event, CustomEvent, EventTarget, AbortSignal, AbortController]) provide(one.name, one);
}
