// Takes events of another system by HTTP: checks the signature and the body, and says 202 only when a stream has the event.
const encode = (text) => new TextEncoder().encode(text);
const decode = (bytes) => new TextDecoder().decode(bytes);
const refuse = (status, error) => Response.json({ error }, { status });

async function isSigned(body, signature, secret) {
  const digits = signature?.match(/^sha256=((?:[0-9a-f]{2}){32})$/)?.[1];
  if (!digits) return false;
  const given = Uint8Array.from(digits.match(/../g), (byte) => parseInt(byte, 16));
  const key = await crypto.subtle.importKey("raw", encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
  return crypto.subtle.verify("HMAC", key, given, encode(body));
}

export default {
  async fetch(request, env) {
    const body = await request.text();
    if (!(await isSigned(body, request.headers.get("x-signature-256"), env.SECRET))) return refuse(401, "the signature is wrong");
    let event;
    try {
      event = JSON.parse(body);
    } catch {
      return refuse(400, "the body is not JSON");
    }
    if (typeof event?.id !== "string" || !/^[a-z]+$/.test(event?.type)) return refuse(422, "expected an id and a type of small letters");
    // The stream keeps an event once, however often its sender tries, and answers when it has it.
    const stored = hostServices.messaging.request(`events.${event.type}`, encode(body), { headers: { "Nats-Msg-Id": event.id } });
    const { seq, duplicate = false, error } = JSON.parse(decode(stored));
    if (error) return refuse(503, "the event could not be stored");
    return Response.json({ stored: seq, duplicate }, { status: 202 });
  },
};
