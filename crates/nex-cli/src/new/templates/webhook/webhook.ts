// Answers HTTP requests: checks what comes, publishes it, and says so. A status from 400 on tells the sender what is wrong.
declare const hostServices: { messaging: { publish(subject: string, payload: Uint8Array): void } };

const encode = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text);
const refuse = (status: number, error: string): Response => Response.json({ error }, { status });

// With a SECRET, the header X-Signature-256 has to be "sha256=" and the HMAC of the body in hexadecimal digits.
async function isSigned(request: Request, body: string, secret: string): Promise<boolean> {
  const digits = request.headers.get("x-signature-256")?.match(/^sha256=((?:[0-9a-f]{2}){32})$/)?.[1];
  if (!digits) return false;
  const signature = Uint8Array.from(digits.match(/../g) ?? [], (byte) => parseInt(byte, 16));
  const key = await crypto.subtle.importKey("raw", encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
  return crypto.subtle.verify("HMAC", key, signature, encode(body));
}

export default {
  async fetch(request: Request, env: Record<string, string>): Promise<Response> {
    const body = await request.text();
    if (env.SECRET && !(await isSigned(request, body, env.SECRET))) return refuse(401, "the signature is missing or wrong");
    let event: { type?: unknown } | null;
    try {
      event = JSON.parse(body);
    } catch {
      return refuse(400, "the body is not JSON");
    }
    if (typeof event?.type !== "string") return refuse(422, "expected an object with a text 'type'");
    hostServices.messaging.publish("{{name}}.received", encode(JSON.stringify(event)));
    console.log(`accepted ${event.type}`);
    return Response.json({ accepted: event.type }, { status: 202 });
  },
};
