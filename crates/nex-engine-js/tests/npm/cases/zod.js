import { z } from "zod";

const Order = z.object({ id: z.uuid(), email: z.email(), lines: z.array(z.object({ sku: z.string().min(1), n: z.number().int().positive() })).nonempty(), at: z.coerce.date() });

export default () => {
  const good = { id: "7d444840-9dc0-41d1-b245-5ffdce74fad2", email: "a@b.de", lines: [{ sku: "x", n: 1 }], at: "2026-01-02" };
  const bad = Order.safeParse({ ...good, email: "no", lines: [] });
  return { good: Order.parse(good), bad: bad.error.issues.map(({ path, message }) => [path.join("."), message]), schema: z.toJSONSchema(z.object({ a: z.string().optional() })) };
};
