// The transforms of the web: texts to bytes and back, compression and back.
"use strict";
({ provide, native, asBytes, joined }) => {
  // A class that is a pair of streams, as TransformStream is one.
  class Pair {
    #pair;
    constructor(transformer) { this.#pair = new TransformStream(transformer); }
    get readable() { return this.#pair.readable; }
    get writable() { return this.#pair.writable; }
  }

  class TextEncoderStream extends Pair {
    constructor() {
      // Half of a character, whose other half may be in the next text.
      let half = "";
      super({
        transform(text, controller) {
          text = half + String(text);
          half = /[\ud800-\udbff]$/.test(text) ? text.at(-1) : "";
          const whole = half === "" ? text : text.slice(0, -1);
          if (whole !== "") controller.enqueue(native.encode(whole.toWellFormed()));
        },
        flush(controller) { if (half !== "") controller.enqueue(new Uint8Array([0xef, 0xbf, 0xbd])); },
      });
    }
    get encoding() { return "utf-8"; }
    get [Symbol.toStringTag]() { return "TextEncoderStream"; }
  }

  class TextDecoderStream extends Pair {
    #decoder;
    constructor(label = "utf-8", options = {}) {
      const decoder = new TextDecoder(label, options);
      const give = (text, controller) => { if (text !== "") controller.enqueue(text); };
      super({
        transform(bytes, controller) { give(decoder.decode(bytes, { stream: true }), controller); },
        flush(controller) { give(decoder.decode(), controller); },
      });
      this.#decoder = decoder;
    }
    get encoding() { return this.#decoder.encoding; }
    get fatal() { return this.#decoder.fatal; }
    get ignoreBOM() { return this.#decoder.ignoreBOM; }
    get [Symbol.toStringTag]() { return "TextDecoderStream"; }
  }

  // The host compresses what there is when it is whole: nothing of its own may stay between two pieces.
  const whole = (format, work) => {
    if (!["gzip", "deflate", "deflate-raw"].includes(String(format))) throw new TypeError(`there is no ${format}: use gzip, deflate or deflate-raw`);
    const parts = [];
    return {
      transform(bytes) { parts.push(asBytes(bytes).slice()); },
      flush(controller) {
        let bytes;
        try { bytes = work(String(format), joined(parts)); } catch (why) { throw new RangeError(String(why)); }
        if (bytes === undefined) throw new TypeError(`the bytes are not ${format}, or end too early`);
        if (bytes.length > 0) controller.enqueue(bytes);
      },
    };
  };
  class CompressionStream extends Pair {
    constructor(format) { super(whole(format, native.compress)); }
    get [Symbol.toStringTag]() { return "CompressionStream"; }
  }
  class DecompressionStream extends Pair {
    constructor(format) { super(whole(format, native.decompress)); }
    get [Symbol.toStringTag]() { return "DecompressionStream"; }
  }
  for (const one of [TextEncoderStream, TextDecoderStream, CompressionStream, DecompressionStream]) provide(one.name, one);
}
