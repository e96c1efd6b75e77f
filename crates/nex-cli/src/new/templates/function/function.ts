// Called with each message on its trigger: the payload is a Uint8Array, and what is returned is the reply, as JSON.
const greeting = (name: string): string => `Hello, ${name || "world"}!`;

export default (subject: string, payload: Uint8Array): string => {
  const name = new TextDecoder().decode(payload).trim();
  console.log(`${subject}: ${name}`);
  return greeting(name);
};
