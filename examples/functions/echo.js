// The whole of a JavaScript function: an expression that is a function of (subject, payload).
// The payload is a Uint8Array; the returned value reaches the caller as JSON.
(subject, payload) => ({
  triggered_on: subject,
  payload: new TextDecoder().decode(payload),
});
