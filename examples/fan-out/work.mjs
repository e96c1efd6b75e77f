// Does one task; as many copies as you like share them, and each result is kept once.
export default {
  async fetch(request) {
    const { job, task } = await request.json();
    const result = new TextEncoder().encode(JSON.stringify({ job, task, square: task * task }));
    const stored = hostServices.messaging.request("fan.result", result, { headers: { "Nats-Msg-Id": `result-${job}-${task}` } });
    const { error } = JSON.parse(new TextDecoder().decode(stored));
    if (error) throw new Error(error.description);
    return new Response();
  },
};
