import Handlebars from "handlebars/dist/cjs/handlebars.js";

Handlebars.registerHelper("shout", (text) => text.toUpperCase());
const template = Handlebars.compile("Hello {{shout name}}!{{#each items}} {{@index}}:{{this.a}}{{else}} none{{/each}} {{{raw}}} {{safe}}");

export default () => [template({ name: "you", items: [{ a: 1 }, { a: 2 }], raw: "<b>", safe: "<i>" }), template({ name: "x" })];
