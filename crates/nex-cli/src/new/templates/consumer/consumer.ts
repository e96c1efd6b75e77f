// Called with each message of the stream until it has dealt with it: an answer acknowledges, an error has it tried again after a pause,
// and what fails for good is kept: nex dead ls.
declare const hostServices: {
  messaging: { request(subject: string, payload: Uint8Array, options?: { headers?: Record<string, string> }): Uint8Array };
};

interface Order {
  id: number;
}

const isOrder = (value: unknown): value is Order =>
  typeof value === "object" && value !== null && "id" in value && Number.isInteger(value.id);

export default {
  async fetch(request: Request): Promise<Response> {
    const order: unknown = await request.json();
    if (!isOrder(order)) throw new Error("an order has a whole number 'id'");
    // The same for each delivery of a message: the stream that is asked keeps what follows from it once, and answers when it has it.
    const once = `done-${request.headers.get("nats-stream")}-${request.headers.get("nats-sequence")}`;
    const done = new TextEncoder().encode(JSON.stringify({ ...order, done: true }));
    const stored = hostServices.messaging.request("{{name}}.done", done, { headers: { "Nats-Msg-Id": once } });
    const { error } = JSON.parse(new TextDecoder().decode(stored));
    if (error) throw new Error(error.description);
    console.log(`order ${order.id} is done`);
    return new Response();
  },
};
