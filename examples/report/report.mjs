// Adds up sales as they come, and reports them when it is time: two triggers of one function.
const text = (bytes) => new TextDecoder().decode(bytes);
const encode = (value) => new TextEncoder().encode(JSON.stringify(value));

function sold(payload) {
  const { item, amount } = JSON.parse(text(payload));
  if (!/^[a-z-]{1,40}$/.test(item) || !Number.isInteger(amount)) throw new Error("expected an item and a whole amount");
  hostServices.kv.increment(`sold.${item}`, amount);
}

function report(schedule) {
  const { kv, messaging } = hostServices;
  const items = {};
  for (const key of kv.keys().filter((key) => key.startsWith("sold.")).sort()) {
    const { revision, value } = kv.entry(key);
    items[key.slice("sold.".length)] = { amount: Number(text(value)), revision };
  }
  const number = kv.increment("reports");
  messaging.publish("reports.sales", encode({ number, schedule, items }));
  console.log(`report ${number} of ${Object.keys(items).length} items`);
}

export default (subject, payload) => (subject === "sales" ? sold(payload) : report(subject));
