import * as pako from "pako";

export default () => { const text = "abc ".repeat(500); const packed = pako.gzip(text); return [packed.length < 100, pako.ungzip(packed, { to: "string" }) === text, [...pako.deflate(new Uint8Array([1, 2, 3]))]]; };
