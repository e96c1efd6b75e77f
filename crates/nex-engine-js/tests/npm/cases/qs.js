import qs from "qs";

export default () => [qs.parse("a[b][c]=1&l[]=x&l[]=y&t=%E2%82%AC"), qs.stringify({ f: { s: ["a", "b"], n: null }, d: "ä b" }, { arrayFormat: "repeat" })];
