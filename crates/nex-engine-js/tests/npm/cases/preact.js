import { h } from "preact";
import { useState } from "preact/hooks";
import { render } from "preact-render-to-string";

const List = ({ items }) => { const [n] = useState(items.length); return h("ul", { class: "l", "data-n": n }, items.map((item) => h("li", { key: item }, item))); };

export default () => render(h("main", { style: { color: "red" } }, h("h1", null, "A & B"), h(List, { items: ["<a>", "b"] })));
