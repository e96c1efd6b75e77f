import nunjucks from "nunjucks/browser/nunjucks.js";

export default () => nunjucks.renderString("{% macro b(x) %}<b>{{ x }}</b>{% endmacro %}{% for i in list %}{{ b(i) }}{{ loop.index }}{% endfor %} {{ name | title }}", { list: ["a", "<"], name: "some words" });
