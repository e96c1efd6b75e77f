// Counts its calls in the workload's own key-value bucket, a host service: nothing to configure, no credentials.
(subject, payload) => {
  const { kv } = hostServices;
  const text = (bytes) => new TextDecoder().decode(bytes);
  const bytes = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));

  let count = 0;
  try {
    count = Number(text(kv.get("count")));
  } catch {
    // The first call: there is no such key yet.
  }
  kv.set("count", bytes(String(count + 1)));
  return { count: count + 1 };
};
