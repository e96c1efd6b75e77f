// The second step asks a payment service. One that is not there, or busy, is an error: the order is tried again after a pause, which
// doubles. What it declines is an outcome like another.
function ask(subject, value, headers = {}) {
  const answer = hostServices.messaging.request(subject, new TextEncoder().encode(JSON.stringify(value)), { headers });
  return JSON.parse(new TextDecoder().decode(answer));
}

export default {
  async fetch(request) {
    const order = await request.json();
    const { status } = ask("payments.charge", { order: order.id, amount: order.total });
    if (status !== "charged" && status !== "declined") throw new Error(`payments said ${status}`);
    const stored = ask(`orders.${status}`, order, { "Nats-Msg-Id": `${status}-${order.id}` });
    if (stored.error) throw new Error(stored.error.description);
    console.log(`order ${order.id} is ${status}`);
    return new Response();
  },
};
