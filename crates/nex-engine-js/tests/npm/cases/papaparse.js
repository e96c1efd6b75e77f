import Papa from "papaparse";

export default () => [Papa.parse("a;b\n1;x\n2;\"y;z\"\n", { header: true, dynamicTyping: true, skipEmptyLines: true }).data, Papa.unparse([{ a: 1, b: "x,y" }, { a: 2, b: 'q"' }])];
