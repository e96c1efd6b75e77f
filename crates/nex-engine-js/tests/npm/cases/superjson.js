import superjson from "superjson";

export default () => { const text = superjson.stringify({ d: new Date(0), s: new Set([1]), m: new Map([["a", 1n]]), u: undefined, r: /x/gi }); const back = superjson.parse(text); return [text, back.d instanceof Date, back.m.get("a") === 1n, [...back.s], String(back.r)]; };
