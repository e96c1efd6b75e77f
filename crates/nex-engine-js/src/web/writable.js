// WritableStream, TransformStream and what pipes one stream into another.
"use strict";
({ provide }) => {
  const lock = Symbol("lock");
  const strategy = ({ highWaterMark, size } = {}, mark) => {
    highWaterMark = highWaterMark === undefined ? mark : Number(highWaterMark);
    if (Number.isNaN(highWaterMark) || highWaterMark < 0) throw new RangeError("highWaterMark is a number from 0 on");
    return { highWaterMark, size: size ?? (() => 1) };
  };
  // A promise that somebody may wait for, or nobody.
  const promised = () => {
    const made = Promise.withResolvers();
    made.promise.catch(() => {});
    return made;
  };

  class Writer {
    #stream;
    constructor(stream) { this.#stream = stream[lock](this); }
    #held() {
      if (this.#stream === undefined) throw new TypeError("the writer was released");
      return this.#stream;
    }
    get closed() { return this.#stream === undefined ? Promise.reject(new TypeError("the writer was released")) : this.#stream.closed(); }
    get ready() { return this.#stream === undefined ? Promise.reject(new TypeError("the writer was released")) : this.#stream.ready(); }
    get desiredSize() { return this.#held().desiredSize(); }
    async write(chunk) { return this.#held().write(chunk); }
    async close() { return this.#held().close(); }
    async abort(reason) { return this.#held().abort(reason); }
    releaseLock() { this.#stream?.unlock(); this.#stream = undefined; }
    get [Symbol.toStringTag]() { return "WritableStreamDefaultWriter"; }
  }

  class WritableStream {
    #sink; #queue = []; #size = 0; #state = "writable"; #error; #busy = false; #started = false; #isClosing = false;
    #writer; #mark; #sizeOf; #ready; #closed = promised(); #aborting = new AbortController(); #controller;
    constructor(sink = {}, given = {}) {
      if (sink.type !== undefined) throw new RangeError("a sink has no type");
      const { highWaterMark, size } = strategy(given, 1);
      [this.#sink, this.#mark, this.#sizeOf] = [sink, highWaterMark, size];
      const stream = this;
      this.#controller = Object.freeze({
        get signal() { return stream.#aborting.signal; },
        error(reason) { stream.#fail(reason); },
      });
      this.#turn();
      Promise.resolve(sink.start?.(this.#controller)).then(() => { this.#started = true; this.#next(); }, (error) => this.#fail(error));
    }
    get locked() { return this.#writer !== undefined; }
    getWriter() { return new Writer(this); }
    async abort(reason) { return this.#unlocked().#abort(reason); }
    async close() { return this.#unlocked().#close(); }
    #unlocked() {
      if (this.locked) throw new TypeError("the stream is locked by a writer");
      return this;
    }
    [lock](writer) {
      if (this.locked) throw new TypeError("the stream is locked by another writer");
      this.#writer = writer;
      return {
        closed: () => this.#closed.promise,
        ready: () => this.#ready.promise,
        desiredSize: () => this.#room(),
        write: (chunk) => this.#write(chunk),
        close: () => this.#close(),
        abort: (reason) => this.#abort(reason),
        unlock: () => { this.#writer = undefined; },
      };
    }
    #room() { return this.#state === "errored" ? null : this.#state === "closed" ? 0 : this.#mark - this.#size; }
    // A new `ready`, resolved where there is room.
    #turn() {
      const isOpen = this.#room() > 0;
      if (!isOpen && this.#ready?.isOpen !== false) this.#ready = promised();
      this.#ready ??= promised();
      this.#ready.isOpen = isOpen;
      if (isOpen) this.#ready.resolve();
    }
    #write(chunk) {
      if (this.#state === "errored") return Promise.reject(this.#error);
      if (this.#state === "closed" || this.#isClosing) return Promise.reject(new TypeError("the stream is closed"));
      let size;
      try { size = Number(this.#sizeOf(chunk)); } catch (error) { this.#fail(error); return Promise.reject(error); }
      const done = promised();
      this.#queue.push({ chunk, size, done });
      this.#size += size;
      this.#turn();
      this.#next();
      return done.promise;
    }
    #close() {
      if (this.#state !== "writable" || this.#isClosing) return Promise.reject(new TypeError("the stream is closed already, or failed"));
      this.#isClosing = true;
      const done = promised();
      this.#queue.push({ isEnd: true, size: 0, done });
      this.#next();
      return done.promise;
    }
    // One after the other.
    async #next() {
      if (!this.#started || this.#busy || this.#state !== "writable" || this.#queue.length === 0) return;
      this.#busy = true;
      const entry = this.#queue.shift();
      try {
        await (entry.isEnd ? this.#sink.close?.() : this.#sink.write?.(entry.chunk, this.#controller));
      } catch (error) {
        this.#busy = false;
        entry.done.reject(error);
        return this.#fail(error);
      }
      this.#busy = false;
      entry.done.resolve();
      if (entry.isEnd && this.#state === "writable") {
        this.#state = "closed";
        this.#closed.resolve();
        this.#ready.resolve();
      }
      this.#size -= entry.size;
      if (this.#state === "writable") this.#turn();
      this.#next();
    }
    #fail(error) {
      if (this.#state !== "writable") return;
      [this.#state, this.#error] = ["errored", error];
      for (const { done } of this.#queue.splice(0)) done.reject(error);
      if (this.#ready.isOpen) this.#ready = promised();
      this.#ready.reject(error);
      this.#closed.reject(error);
    }
    async #abort(reason) {
      if (this.#state !== "writable") return;
      this.#aborting.abort(reason);
      this.#fail(reason);
      await this.#sink.abort?.(reason);
    }
    get [Symbol.toStringTag]() { return "WritableStream"; }
  }

  class TransformStream {
    #readable; #writable;
    constructor(transformer = {}, writableStrategy = {}, readableStrategy = {}) {
      if (transformer.readableType !== undefined || transformer.writableType !== undefined) throw new RangeError("a transformer has no types");
      let [source, sink, wanted, taken] = [undefined, undefined, promised(), promised()];
      const fail = (error) => { source.error(error); sink.error(error); wanted.resolve(); taken.resolve(); };
      const controller = Object.freeze({
        get desiredSize() { return source.desiredSize; },
        enqueue(chunk) {
          source.enqueue(chunk);
          // The next chunk is taken when somebody wants it.
          if (source.desiredSize <= 0) { wanted = promised(); taken.resolve(); }
        },
        error: fail,
        terminate() { source.close(); sink.error(new TypeError("the stream was terminated")); },
      });
      const transform = transformer.transform?.bind(transformer) ?? ((chunk) => controller.enqueue(chunk));
      this.#readable = new ReadableStream({
        start(given) { source = given; },
        pull() { taken = promised(); wanted.resolve(); return taken.promise; },
        async cancel(reason) { sink.error(reason); wanted.resolve(); await transformer.cancel?.(reason); },
      }, strategy(readableStrategy, 0));
      const started = promised();
      this.#writable = new WritableStream({
        start(given) { sink = given; return started.promise; },
        async write(chunk) {
          await wanted.promise;
          try { await transform(chunk, controller); } catch (error) { fail(error); throw error; }
        },
        async close() {
          try { await transformer.flush?.(controller); } catch (error) { fail(error); throw error; }
          if (source.desiredSize !== null) try { source.close(); } catch { /* It was terminated. */ }
          taken.resolve();
        },
        async abort(reason) { source.error(reason); await transformer.cancel?.(reason); },
      }, strategy(writableStrategy, 1));
      new Promise((done) => done(transformer.start?.(controller))).then(started.resolve, (error) => { fail(error); started.reject(error); });
    }
    get readable() { return this.#readable; }
    get writable() { return this.#writable; }
    get [Symbol.toStringTag]() { return "TransformStream"; }
  }

  // Reads as fast as is written; the last writes are waited for. What it throws says which side failed.
  const of = (side) => (error) => { throw { error, side }; };
  const pump = async (reader, writer) => {
    let last = Promise.resolve();
    for (;;) {
      await writer.ready.catch(of("writer"));
      const { value, done } = await reader.read().catch(of("reader"));
      if (done) return last.catch(of("writer"));
      last = writer.write(value);
      last.catch(() => {});
    }
  };
  const pipe = async (from, to, { preventClose = false, preventAbort = false, preventCancel = false, signal } = {}) => {
    const [reader, writer, stopped] = [from.getReader(), to.getWriter(), promised()];
    const abort = () => stopped.reject({ error: signal.reason, side: "signal" });
    if (signal?.aborted) abort(); else signal?.addEventListener("abort", abort, { once: true });
    // A side that fails ends both, also while the other one waits.
    reader.closed.catch((error) => stopped.reject({ error, side: "reader" }));
    writer.closed.then(
      () => stopped.reject({ error: new TypeError("the stream is closed"), side: "writer" }),
      (error) => stopped.reject({ error, side: "writer" }));
    try {
      await Promise.race([pump(reader, writer), stopped.promise]);
      if (!preventClose) await writer.close().catch(of("writer"));
    } catch ({ error, side }) {
      if (!preventAbort && side !== "writer") await writer.abort(error).catch(() => {});
      if (!preventCancel && side !== "reader") await reader.cancel(error).catch(() => {});
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
      reader.releaseLock();
      writer.releaseLock();
    }
  };
  class CountQueuingStrategy {
    constructor({ highWaterMark }) { this.highWaterMark = Number(highWaterMark); }
    size() { return 1; }
  }
  class ByteLengthQueuingStrategy {
    constructor({ highWaterMark }) { this.highWaterMark = Number(highWaterMark); }
    size(chunk) { return chunk.byteLength; }
  }
  for (const one of [WritableStream, TransformStream, CountQueuingStrategy, ByteLengthQueuingStrategy]) provide(one.name, one);
  provide("WritableStreamDefaultWriter", Writer);

  // Methods of a ReadableStream.
  return {
    async pipeTo(from, to, options) {
      if (!(to instanceof WritableStream)) throw new TypeError("a stream is piped to a WritableStream");
      if (from.locked || to.locked) throw new TypeError("a stream that is locked is not piped");
      return pipe(from, to, options);
    },
    pipeThrough(from, { readable, writable }, options) {
      if (!(writable instanceof WritableStream)) throw new TypeError("a stream is piped through a pair of a readable and a writable one");
      if (from.locked || writable.locked) throw new TypeError("a stream that is locked is not piped");
      pipe(from, writable, options).catch(() => {});
      return readable;
    },
  };
}
