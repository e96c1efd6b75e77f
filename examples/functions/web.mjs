// Answers requests. The method and the path are the headers Nex-Http-Method and Nex-Http-Path of the message.
export default {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname !== "/") return new Response(`no such page: ${pathname}`, { status: 404 });
    return Response.json({ method: request.method, body: await request.text() });
  },
};
