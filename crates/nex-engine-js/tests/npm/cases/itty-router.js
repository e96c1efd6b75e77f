import { AutoRouter, error, json } from "itty-router";

const router = AutoRouter();
router
  .get("/todos/:id", ({ params }) => ({ id: params.id }))
  .post("/todos", async (request) => json(await request.json(), { status: 201 }))
  .get("/fails", () => error(418, "a teapot"));

export default async () => {
  const of = async (path, init) => {
    const response = await router.fetch(new Request(`http://h${path}`, init));
    return [response.status, await response.text()];
  };
  return [await of("/todos/7"), await of("/todos", { method: "POST", body: '{"a":1}' }), await of("/fails"), await of("/none")];
};
