// TypeScript deploys as it is: types are left out where the function is loaded, and errors name the lines of this file.
interface Order {
  item: string;
  quantity: number;
}

const isOrder = (value: unknown): value is Order =>
  typeof value === "object" && value !== null && "item" in value && "quantity" in value;

export default {
  async fetch(request: Request): Promise<Response> {
    const order: unknown = await request.json();
    if (!isOrder(order)) return new Response("expected an item and a quantity", { status: 400 });
    return Response.json({ ...order, total: order.quantity * 3 } satisfies Order & { total: number });
  },
};
