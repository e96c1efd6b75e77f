import { Liquid } from "liquidjs";

const engine = new Liquid();
export default async () => [await engine.parseAndRender("{% for p in products %}{{ p.name | upcase }}: {{ p.price | times: 2 }}{% unless forloop.last %}, {% endunless %}{% endfor %}", { products: [{ name: "a", price: 1.5 }, { name: "b", price: 2 }] }), engine.parseAndRenderSync("{{ 'now' | append: '!' }} {% assign x = 3 %}{{ x | plus: 1 }}")];
