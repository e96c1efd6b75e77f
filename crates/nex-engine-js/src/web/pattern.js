// URLPattern. The host parses; its regular expressions run here.
"use strict";
({ provide, native }) => {
  const names = ["protocol", "username", "password", "hostname", "port", "pathname", "search", "hash"];
  const given = (input, base) => ({
    input: typeof input === "object" && input !== null
      ? Object.fromEntries([...names, "baseURL"].filter((name) => input[name] !== undefined).map((name) => [name, String(input[name]).toWellFormed()]))
      : String(input).toWellFormed(),
    base: base === undefined ? undefined : String(base).toWellFormed(),
  });
  class URLPattern {
    #parts; #hasRegExpGroups;
    constructor(input = {}, base = undefined, options = undefined) {
      if (typeof base === "object" && base !== null) [base, options] = [undefined, base];
      const ignoreCase = Boolean(options?.ignoreCase);
      if (base !== undefined && typeof input === "object") throw new TypeError("a base stands beside a text, and in an object as baseURL");
      const parsed = native.patternParse(JSON.stringify({ ...given(input, base), ignoreCase }));
      if (parsed === undefined) throw new TypeError(`that is no URL pattern: ${JSON.stringify(input).slice(0, 200)}`);
      const { hasRegExpGroups, ...parts } = JSON.parse(parsed);
      this.#hasRegExpGroups = hasRegExpGroups;
      this.#parts = {};
      for (const name of names) {
        const [pattern, source, groups] = parts[name];
        try {
          this.#parts[name] = { pattern, groups, regexp: new RegExp(source, ignoreCase ? "iu" : "u") };
        } catch (error) {
          throw new TypeError(`the ${name} of the URL pattern is no regular expression: ${error.message}`);
        }
      }
    }
    get hasRegExpGroups() { return this.#hasRegExpGroups; }
    #pattern(name) { return this.#parts[name].pattern; }
    test(input = {}, base = undefined) { return this.exec(input, base) !== null; }
    exec(input = {}, base = undefined) {
      if (base !== undefined && typeof input === "object") throw new TypeError("a base stands beside a text, and in an object as baseURL");
      const parts = native.patternInput(JSON.stringify(given(input, base)));
      if (parts === undefined) return null;
      const [values, result] = [JSON.parse(parts), { inputs: base === undefined ? [input] : [input, base] }];
      for (const name of names) {
        const { regexp, groups } = this.#parts[name];
        const found = regexp.exec(values[name]);
        if (found === null) return null;
        result[name] = { input: values[name], groups: Object.fromEntries(groups.map((group, at) => [group, found[at + 1]])) };
      }
      return result;
    }
    static {
      for (const name of names) {
        Object.defineProperty(this.prototype, name, { get() { return this.#pattern(name); }, configurable: true, enumerable: true });
      }
    }
    get [Symbol.toStringTag]() { return "URLPattern"; }
  }
  provide("URLPattern", URLPattern);
}
