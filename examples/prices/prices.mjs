// Watches prices in a key-value bucket, and tells of those that have changed by more than a tenth since it last told.
const text = (bytes) => new TextDecoder().decode(bytes);

export default {
  async fetch(request) {
    const item = new URL(request.url).host.split(".").pop();
    if (request.headers.has("kv-operation")) return new Response(); // It was removed.
    const price = Number(await request.text());
    if (!(price > 0)) throw new Error(`the price of ${item} is no number`);
    const { kv, messaging } = hostServices;
    const { revision, value } = kv.entry(item);
    const before = value ? Number(text(value)) : price;
    if (value && Math.abs(price - before) <= before / 10) return new Response();
    // Another call may have told meanwhile: then this one is made again, and sees it.
    kv.update(item, new TextEncoder().encode(String(price)), revision);
    if (value) messaging.publish("prices.changed", new TextEncoder().encode(JSON.stringify({ item, before, price })));
    return new Response();
  },
};
