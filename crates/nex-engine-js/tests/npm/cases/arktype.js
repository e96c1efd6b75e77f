import { type } from "arktype";

const Order = type({ id: "string.uuid", n: "1 <= number.integer < 10", "note?": "string" });
export default () => [Order({ id: "7d444840-9dc0-41d1-b245-5ffdce74fad2", n: 3 }), [Order({ id: "x", n: 10 })].map((out) => (out instanceof type.errors ? out.summary : out))];
