import { dump, load } from "js-yaml";

export default () => [load("jobs:\n  - name: a\n    on: true\n  - {name: b, n: 0x1f}\n"), dump({ z: [1, "two"], a: null })];
