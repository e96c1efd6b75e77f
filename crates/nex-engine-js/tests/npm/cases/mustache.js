import Mustache from "mustache";

export default () => Mustache.render("{{#people}}{{name}} ({{> detail}}){{^last}}, {{/last}}{{/people}} {{{html}}} {{html}}", { people: [{ name: "a", age: 1 }, { name: "b", age: 2, last: true }], html: "<b>" }, { detail: "{{age}}" });
