// Makes tasks of a job, a page at a time: each page is a message that says where the next one begins, so that no call is long, and one
// that is made again sends what the stream has already, and keeps once.
const PAGE = 500;

function store(subject, value, id) {
  const payload = new TextEncoder().encode(JSON.stringify(value));
  const answer = hostServices.messaging.request(subject, payload, { headers: { "Nats-Msg-Id": id } });
  const { error } = JSON.parse(new TextDecoder().decode(answer));
  if (error) throw new Error(error.description);
}

export default {
  async fetch(request) {
    const { job, count, from = 0 } = await request.json();
    const until = Math.min(from + PAGE, count);
    for (let task = from; task < until; task++) {
      store("fan.task", { job, task }, `task-${job}-${task}`);
    }
    if (until < count) {
      store("fan.job", { job, count, from: until }, `page-${job}-${until}`);
    }
    return new Response();
  },
};
