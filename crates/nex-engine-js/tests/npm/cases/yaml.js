import { parse, parseDocument, stringify } from "yaml";

export default () => [parse("a: 1\nb: &x [1, 2]\nc: *x\nd: |\n  two\n  lines\ne: 2026-01-02\n"), stringify({ list: [1, { a: "x: y" }], text: "a\nb" }), parseDocument("a: [1").errors.map((error) => error.code)];
