import { decode, encode } from "@msgpack/msgpack";

export default () => [[...encode({ a: [1, -1, 1.5, "ü", null, new Uint8Array([1])] })], decode(encode({ big: 2 ** 40, nested: { x: [true] } }))];
