import { marked } from "marked";

export default () => marked.parse("# Title\n\nSome *text* with `code` and [a link](http://h/?a=1&b=2).\n\n- one\n- two\n\n| a | b |\n|---|:-:|\n| 1 | 2 |\n\n```js\nlet x = 1 < 2;\n```\n");
