import * as v from "valibot";

const Schema = v.object({ email: v.pipe(v.string(), v.email()), n: v.optional(v.pipe(v.number(), v.minValue(1)), 5), kind: v.picklist(["a", "b"]) });

export default () => [v.parse(Schema, { email: "a@b.de", kind: "a" }), v.safeParse(Schema, { email: "x", n: 0, kind: "c" }).issues.map((issue) => [v.getDotPath(issue), issue.message])];
