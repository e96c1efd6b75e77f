// The same as an ES module: the default export is the function.
const greeting = (name) => `Hello, ${name}!`;

export default (subject, payload) => greeting(new TextDecoder().decode(payload) || "world");
