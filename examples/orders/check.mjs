// The first step: an order that makes no sense is given up at once, one that does goes on with its total.

// Asks the stream that takes it, which answers when it has it. The id is the same for each delivery of the order: what follows from it is
// kept once.
function store(subject, value, id) {
  const payload = new TextEncoder().encode(JSON.stringify(value));
  const answer = hostServices.messaging.request(subject, payload, { headers: { "Nats-Msg-Id": id } });
  const { error } = JSON.parse(new TextDecoder().decode(answer));
  if (error) throw new Error(`${subject} is not stored: ${error.description}`);
}

export default {
  async fetch(request) {
    const order = await request.json();
    const isSensible = Number.isInteger(order?.id) && order.quantity > 0 && order.price > 0;
    if (!isSensible) throw new Error(`order ${JSON.stringify(order?.id)} makes no sense`);
    store("orders.checked", { ...order, total: order.quantity * order.price }, `checked-${order.id}`);
    return new Response();
  },
};
