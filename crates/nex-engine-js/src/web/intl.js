// Intl: what a script asks for is checked here, by the rules of ECMA-402, and answered by the host.
"use strict";
({ native, dates, numbers, texts }) => {
  const ask = native.intl;
  const known = (answer, what) => {
    if (answer === undefined) throw new RangeError(what);
    return answer;
  };
  const isObject = (value) => (typeof value === "object" && value !== null) || typeof value === "function";

  // Language tags. A list of them has an end, as everything has that the host reads.
  const descriptions = new Map();
  const describe = (tag) => {
    if (!descriptions.has(tag)) {
      if (descriptions.size > 50) descriptions.clear();
      descriptions.set(tag, JSON.parse(known(ask("locale", tag.toWellFormed()), `Incorrect locale information provided: ${tag.slice(0, 64)}`)));
    }
    return descriptions.get(tag);
  };
  const listed = (locales) => {
    if (locales === undefined) return [];
    if (typeof locales === "string" || locales instanceof Locale) return [describe(String(locales))];
    if (locales === null) throw new TypeError("null is no list of locales");
    const [list, seen] = [Object(locales), new Map()];
    const length = Math.min(Math.max(Math.trunc(Number(list.length)) || 0, 0), Number.MAX_SAFE_INTEGER);
    if (length > 1000) throw new RangeError("a list of locales has at most 1000");
    for (let at = 0; at < length; at++) {
      if (!(at in list)) continue;
      if (typeof list[at] !== "string" && !isObject(list[at])) throw new TypeError("a locale is a text or an Intl.Locale");
      const one = describe(String(list[at]));
      seen.set(one.tag, one);
    }
    return [...seen.values()];
  };

  // Options, read as the standard says: each once, in its order.
  const option = (options, name, values, fallback = undefined) => {
    let value = options[name];
    if (value === undefined) return fallback;
    value = String(value);
    if (values !== undefined && !values.includes(value)) throw new RangeError(`Value ${value.slice(0, 64)} out of range for the option ${name}`);
    return value;
  };
  const flag = (options, name, fallback = undefined) => options[name] === undefined ? fallback : Boolean(options[name]);
  const number = (value, least, most, name, fallback) => {
    if (value === undefined) return fallback;
    value = Number(value);
    if (!(value >= least && value <= most)) throw new RangeError(`${name} value is out of range`);
    return Math.floor(value);
  };
  const coerced = (options) => {
    if (options === null) throw new TypeError("options are an object, not null");
    return options === undefined ? Object.create(null) : Object(options);
  };
  const given = (options) => {
    if (options !== undefined && !isObject(options)) throw new TypeError("options are an object");
    return options ?? Object.create(null);
  };
  const matcher = (options) => option(options, "localeMatcher", ["lookup", "best fit"], "best fit");

  const systems = ("adlm arab arabext beng cakm deva fullwide gujr guru hanidec khmr knda laoo latn mlym mong mtei mymr nkoo olck orya " +
    "tamldec telu thai tibt").split(" ");
  // The first locale that there is data for, with what its tag and the options have of some keys; an option comes first.
  const resolved = (locales, keys) => {
    const { base, keywords } = listed(locales).find((one) => one.available) ?? describe("en-US");
    const found = {}, kept = [];
    for (const [key, [asked, values]] of Object.entries(keys)) {
      const tagged = Object.hasOwn(keywords, key) && values.includes(keywords[key] || "true") ? keywords[key] || "true" : undefined;
      found[key] = asked !== undefined && values.includes(asked) ? asked : tagged;
      if (tagged !== undefined && found[key] === tagged) kept.push(tagged === "true" ? key : `${key}-${tagged}`);
    }
    return { base, locale: kept.length === 0 ? base : `${base}-u-${kept.sort().join("-")}`, ...found };
  };
  const digits = (options) => {
    const name = option(options, "numberingSystem");
    if (name !== undefined && !/^[a-z0-9]{3,8}(-[a-z0-9]{3,8})*$/i.test(name)) throw new RangeError(`Invalid numberingSystem: ${name.slice(0, 64)}`);
    return [name?.toLowerCase(), systems];
  };
  const withDigits = (base, system) => (system === undefined ? base : `${base}-u-nu-${system}`);
  const system = (base, chosen) => chosen ?? ask("digits", base);

  // The pieces of a text, from the host.
  const pieces = (what, locale, options, value) => {
    const flat = JSON.parse(known(ask("format", what, locale, options, value), "this value cannot be written"));
    const all = [];
    for (let at = 0; at < flat.length; at += 2) all.push({ type: flat[at], value: flat[at + 1] });
    return all;
  };
  const joined = (all) => all.map(({ value }) => value).join("");

  // A class as the standard has it: it knows its locales, and some can be called without `new`.
  const define = (Class, isCallable) => {
    const { name } = Class;
    const hidden = (on, key, value) => Object.defineProperty(on, key, { value, writable: true, configurable: true, enumerable: false });
    Object.defineProperty(Class.prototype, Symbol.toStringTag, { value: `Intl.${name}`, configurable: true });
    hidden(Class, "supportedLocalesOf", (locales, options = undefined) => {
      const all = listed(locales);
      matcher(coerced(options));
      return all.filter((one) => one.available).map((one) => one.tag);
    });
    if (!isCallable) return Class;
    const callable = function (locales = undefined, options = undefined) {
      return Reflect.construct(Class, [locales, options], new.target ?? callable);
    };
    Object.defineProperties(callable, Object.getOwnPropertyDescriptors(Class));
    hidden(Class.prototype, "constructor", callable);
    return callable;
  };

  const keys = { calendar: "ca", collation: "co", hourCycle: "hc", caseFirst: "kf", numeric: "kn", numberingSystem: "nu" };
  class Locale {
    #tag; #parts;
    constructor(tag, options = undefined) {
      if (typeof tag !== "string" && !isObject(tag)) throw new TypeError("a locale is a text or an Intl.Locale");
      const from = describe(String(tag));
      options = coerced(options);
      const subtag = (name, pattern) => {
        const value = option(options, name);
        if (value !== undefined && !pattern.test(value)) throw new RangeError(`${name} ${value.slice(0, 64)} is none`);
        return value;
      };
      const language = subtag("language", /^([a-z]{2,3}|[a-z]{5,8})$/i) ?? from.language;
      const script = subtag("script", /^[a-z]{4}$/i) ?? from.script;
      const region = subtag("region", /^([a-z]{2}|[0-9]{3})$/i) ?? from.region;
      const keywords = { ...from.keywords };
      for (const [name, key] of Object.entries(keys)) {
        const value = name === "numeric" ? flag(options, name)?.toString() : subtag(name, /^[a-z0-9]{3,8}(-[a-z0-9]{3,8})*$/i);
        if (value !== undefined) keywords[key] = value === "true" ? "" : value;
      }
      const variants = from.base.split("-").filter((one, at) => at > 0 && (/^[a-z0-9]{5,8}$/i.test(one) || /^[0-9][a-z0-9]{3}$/i.test(one)));
      const written = Object.entries(keywords).sort().flatMap(([key, value]) => (value === "" ? [key] : [key, value]));
      const id = [language, script, region, ...variants].filter((one) => typeof one === "string");
      this.#parts = describe([...id, ...(written.length > 0 ? ["u", ...written] : [])].join("-"));
      this.#tag = this.#parts.tag;
    }
    #keyword(key) { return Object.hasOwn(this.#parts.keywords, key) ? this.#parts.keywords[key] : undefined; }
    get baseName() { return this.#parts.base; }
    get language() { return this.#parts.language; }
    get script() { return this.#parts.script ?? undefined; }
    get region() { return this.#parts.region ?? undefined; }
    get calendar() { return this.#keyword("ca"); }
    get collation() { return this.#keyword("co"); }
    get hourCycle() { return this.#keyword("hc"); }
    get caseFirst() { return this.#keyword("kf"); }
    get numeric() { return ["", "true"].includes(this.#keyword("kn")); }
    get numberingSystem() { return this.#keyword("nu"); }
    maximize() { return new Locale(ask("likely", "maximize", this.#tag)); }
    minimize() { return new Locale(ask("likely", "minimize", this.#tag)); }
    toString() { return this.#tag; }
  }
  Object.defineProperty(Locale.prototype, Symbol.toStringTag, { value: "Intl.Locale", configurable: true });

  const tools = { ask, known, option, flag, number, coerced, given, matcher, resolved, systems, digits, withDigits, system, pieces, joined, define };
  const { DateTimeFormat, dateText } = dates(tools);
  const { NumberFormat, PluralRules, numberText } = numbers(tools);
  const { Collator, ListFormat, RelativeTimeFormat, Segmenter, compareTexts } = texts(tools);
  const Intl = {};
  const own = {
    getCanonicalLocales: (locales) => listed(locales).map((one) => one.tag),
    supportedValuesOf(key) {
      switch (String(key)) {
        case "calendar": return ["gregory"];
        case "numberingSystem": return [...systems];
        case "timeZone": return JSON.parse(ask("zones"));
        default: throw new RangeError("the values known here are those of calendar, numberingSystem and timeZone");
      }
    },
    Collator, DateTimeFormat, ListFormat, Locale, NumberFormat, PluralRules, RelativeTimeFormat, Segmenter,
  };
  for (const [name, value] of Object.entries(own)) Object.defineProperty(Intl, name, { value, writable: true, configurable: true, enumerable: false });
  Object.defineProperty(Intl, Symbol.toStringTag, { value: "Intl", configurable: true });
  return { Intl, dateText, numberText, compareTexts };
}
