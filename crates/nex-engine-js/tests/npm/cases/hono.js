import { Hono } from "hono";
import { streamText } from "hono/streaming";
import { cors } from "hono/cors";
import { validator } from "hono/validator";
import { sign, verify } from "hono/jwt";

const app = new Hono();
app.use("*", cors());
app.get("/hello/:name", (c) => c.json({ hello: c.req.param("name"), q: c.req.query("q") }));
app.post("/items", validator("json", (value, c) => (typeof value.name === "string" ? value : c.text("no name", 422))),
  (c) => c.json({ created: c.req.valid("json").name }, 201, { Location: "/items/1" }));
app.get("/stream", (c) => streamText(c, async (stream) => { await stream.write("one "); await stream.write("two"); }));
app.notFound((c) => c.text("nothing here", 404));
app.onError((error, c) => c.text(`sorry: ${error.message}`, 500));
app.get("/fails", () => { throw new Error("on purpose"); });

export default async () => {
  const of = async (path, init) => {
    const response = await app.request(path, init);
    return [response.status, response.headers.get("location"), await response.text()];
  };
  const token = await sign({ role: "admin", exp: 4102444800 }, "secret", "HS256");
  return {
    get: await of("/hello/you?q=1"),
    created: await of("/items", { method: "POST", body: JSON.stringify({ name: "a" }), headers: { "content-type": "application/json" } }),
    refused: await of("/items", { method: "POST", body: "{}", headers: { "content-type": "application/json" } }),
    stream: await of("/stream"),
    missing: await of("/nowhere"),
    fails: await of("/fails"),
    payload: await verify(token, "secret", "HS256"),
  };
};
