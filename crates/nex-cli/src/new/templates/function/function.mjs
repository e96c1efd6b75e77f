// Called with each message on its trigger: the payload is a Uint8Array, and what is returned is the reply, as JSON.
const greeting = (name) => `Hello, ${name || "world"}!`;

export default (subject, payload) => {
  const name = new TextDecoder().decode(payload).trim();
  console.log(`${subject}: ${name}`);
  return greeting(name);
};
