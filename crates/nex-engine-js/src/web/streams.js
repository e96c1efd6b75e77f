// ReadableStream with the default reader: what bodies are read by. Nothing here waits for the outside: sources are scripts.
"use strict";
({ provide }) => {
  const next = Symbol("next");
  class Reader {
    #stream;
    constructor(stream) { this.#stream = stream[lock](this); }
    get closed() { return this.#stream === undefined ? Promise.reject(new TypeError("the reader was released")) : this.#stream.closed; }
    async read() {
      if (this.#stream === undefined) throw new TypeError("the reader was released");
      return this.#stream.read();
    }
    [next]() { return this.#stream.next(); }
    async cancel(reason) { return this.#stream?.cancel(reason); }
    releaseLock() { this.#stream?.unlock(); this.#stream = undefined; }
    get [Symbol.toStringTag]() { return "ReadableStreamDefaultReader"; }
  }
  const lock = Symbol("lock");
  // Reads into a buffer that it is given. What a stream has given and no buffer had room for waits here.
  class ByteReader {
    #reader; #left = new Uint8Array();
    constructor(stream) { this.#reader = new Reader(stream); }
    get closed() { return this.#reader.closed; }
    async read(view) {
      if (!ArrayBuffer.isView(view) || view.byteLength === 0) throw new TypeError("a view with room is read into");
      const { buffer, byteOffset: offset, byteLength: room, BYTES_PER_ELEMENT: size = 1 } = view;
      let [filled, ended] = [0, false];
      while (!ended && (filled === 0 || filled % size !== 0)) {
        if (this.#left.length === 0) {
          const { value, done } = await this.#reader.read();
          ended = done;
          if (!done) this.#left = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
        }
        const taken = this.#left.subarray(0, room - filled);
        new Uint8Array(buffer, offset + filled, taken.length).set(taken);
        this.#left = this.#left.subarray(taken.length);
        filled += taken.length;
      }
      if (filled % size !== 0) throw new TypeError("the stream ended within an element of the view");
      return { value: new view.constructor(buffer, offset, filled / size), done: ended && filled === 0 };
    }
    async cancel(reason) { return this.#reader.cancel(reason); }
    releaseLock() { this.#reader.releaseLock(); }
    get [Symbol.toStringTag]() { return "ReadableStreamBYOBReader"; }
  }

  class ReadableStream {
    #source; #queue = []; #size = 0; #waiting = []; #state = "readable"; #error; #closing = false; #pulling = false; #again = false;
    #reader; #started = false; #mark; #sizeOf; #closed; #controller;
    constructor(source = {}, { highWaterMark = 1, size = () => 1 } = {}) {
      if (source.type !== undefined && source.type !== "bytes") throw new RangeError("a stream's type is \"bytes\", or none");
      [this.#source, this.#mark, this.#sizeOf] = [source, Number(highWaterMark), size];
      this.#closed = Promise.withResolvers();
      this.#closed.promise.catch(() => {});
      const stream = this;
      this.#controller = {
        get desiredSize() { return stream.#state === "errored" ? null : stream.#state === "closed" ? 0 : stream.#mark - stream.#size; },
        enqueue(chunk) { stream.#enqueue(chunk); },
        close() { stream.#close(); },
        error(reason) { stream.#fail(reason); },
      };
      const started = source.start?.(this.#controller);
      Promise.resolve(started).then(() => { this.#started = true; this.#pull(); }, (error) => this.#fail(error));
    }
    static from(iterable) {
      const iterator = iterable[Symbol.asyncIterator]?.() ?? iterable[Symbol.iterator]();
      return new ReadableStream({
        async pull(controller) {
          const { done, value } = await iterator.next();
          if (done) controller.close(); else controller.enqueue(await value);
        },
        async cancel(reason) { await iterator.return?.(reason); },
      }, { highWaterMark: 0 });
    }
    get locked() { return this.#reader !== undefined; }
    getReader({ mode } = {}) {
      if (mode === undefined) return new Reader(this);
      if (mode !== "byob" || this.#source.type !== "bytes") throw new TypeError("readers of their own buffers are for streams of bytes");
      return new ByteReader(this);
    }
    async cancel(reason) {
      if (this.locked) throw new TypeError("the stream is locked by a reader");
      return this.#cancel(reason);
    }
    [lock](reader) {
      if (this.locked) throw new TypeError("the stream is locked by another reader");
      this.#reader = reader;
      return {
        closed: this.#closed.promise,
        read: () => this.#read(true),
        next: () => this.#read(false),
        cancel: (reason) => this.#cancel(reason),
        unlock: () => {
          this.#reader = undefined;
          for (const { reject } of this.#waiting.splice(0)) reject(new TypeError("the reader was released"));
        },
      };
    }
    #enqueue(chunk) {
      if (this.#state !== "readable" || this.#closing) throw new TypeError("the stream takes nothing more");
      const waiting = this.#waiting.shift();
      if (waiting === undefined) {
        const size = Number(this.#sizeOf(chunk));
        this.#queue.push({ chunk, size });
        this.#size += size;
      } else {
        waiting.resolve({ value: chunk, done: false });
      }
      this.#pull();
    }
    #close() {
      if (this.#state !== "readable" || this.#closing) throw new TypeError("the stream is closed already");
      this.#closing = true;
      if (this.#queue.length === 0) this.#end();
    }
    #end() {
      this.#state = "closed";
      this.#closed.resolve();
      for (const { resolve } of this.#waiting.splice(0)) resolve({ value: undefined, done: true });
    }
    #fail(error) {
      if (this.#state !== "readable") return;
      [this.#state, this.#error, this.#queue] = ["errored", error, []];
      this.#closed.reject(error);
      for (const { reject } of this.#waiting.splice(0)) reject(error);
    }
    #read(isAhead) {
      if (this.#queue.length > 0) {
        const { chunk, size } = this.#queue.shift();
        this.#size -= size;
        if (this.#closing && this.#queue.length === 0) this.#end(); else if (isAhead) this.#pull();
        return Promise.resolve({ value: chunk, done: false });
      }
      if (this.#state === "closed") return Promise.resolve({ value: undefined, done: true });
      if (this.#state === "errored") return Promise.reject(this.#error);
      const waiting = Promise.withResolvers();
      this.#waiting.push(waiting);
      this.#pull();
      return waiting.promise;
    }
    #pull() {
      if (!this.#started || this.#state !== "readable" || this.#closing) return;
      if (this.#waiting.length === 0 && this.#mark - this.#size <= 0) return;
      if (typeof this.#source.pull !== "function") return;
      if (this.#pulling) { this.#again = true; return; }
      this.#pulling = true;
      new Promise((done) => done(this.#source.pull(this.#controller))).then(() => {
        this.#pulling = false;
        if (this.#again) { this.#again = false; this.#pull(); }
      }, (error) => this.#fail(error));
    }
    async #cancel(reason) {
      if (this.#state === "errored") throw this.#error;
      if (this.#state === "closed") return;
      [this.#queue, this.#size] = [[], 0];
      this.#end();
      await this.#source.cancel?.(reason);
    }
    tee() {
      const reader = this.getReader();
      const controllers = [];
      const pull = async () => {
        const { value, done } = await reader.read();
        for (const controller of controllers) if (done) controller.close(); else controller.enqueue(value);
      };
      const branch = () => new ReadableStream({ start: (controller) => void controllers.push(controller), pull }, { highWaterMark: 0 });
      return [branch(), branch()];
    }
    async *values({ preventCancel = false } = {}) {
      const reader = this.getReader();
      let ended = false;
      try {
        for (;;) {
          const { value, done } = await reader.read();
          if (done) { ended = true; return; }
          yield value;
        }
      } finally {
        if (!ended && !preventCancel) await reader.cancel();
        reader.releaseLock();
      }
    }
    [Symbol.asyncIterator](options) { return this.values(options); }
    get [Symbol.toStringTag]() { return "ReadableStream"; }
  }
  // Its values, each before the next one is made: a source that waits for the host would keep back what is there.
  const oneByOne = async function* (stream) {
    const reader = stream.getReader();
    let ended = false;
    try {
      for (;;) {
        const { value, done } = await reader[next]();
        if (done) { ended = true; return; }
        yield value;
      }
    } finally {
      if (!ended) await reader.cancel();
      reader.releaseLock();
    }
  };
  provide("ReadableStream", ReadableStream);
  provide("ReadableStreamDefaultReader", Reader);
  provide("ReadableStreamBYOBReader", ByteReader);
  return { oneByOne };
}
