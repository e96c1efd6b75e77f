// Intl.Collator, Intl.Segmenter, Intl.ListFormat and Intl.RelativeTimeFormat.
"use strict";
({ ask, known, option, flag, coerced, given, matcher, resolved, digits, withDigits, system, pieces, joined, define }) => {
  const read = (locales, options) => {
    options = coerced(options);
    const usage = option(options, "usage", ["sort", "search"], "sort");
    matcher(options);
    const collation = option(options, "collation");
    if (collation !== undefined && !/^[a-z0-9]{3,8}(-[a-z0-9]{3,8})*$/i.test(collation)) throw new RangeError(`Invalid collation: ${collation.slice(0, 64)}`);
    const isNumeric = flag(options, "numeric")?.toString();
    const caseFirst = option(options, "caseFirst", ["upper", "lower", "false"]);
    const { base, locale, kn, kf, co } = resolved(locales, {
      kn: [isNumeric, ["true", "false"]], kf: [caseFirst, ["upper", "lower", "false"]],
      co: [collation, ["compat", "dict", "emoji", "eor", "phonebk", "phonetic", "pinyin", "searchjl", "stroke", "trad", "unihan", "zhuyin"]],
    });
    const sensitivity = option(options, "sensitivity", ["base", "accent", "case", "variant"], "variant");
    const ignorePunctuation = flag(options, "ignorePunctuation", base === "th" || base.startsWith("th-"));
    const keys = [...(co ? [`co-${co}`] : []), ...(kf ? [`kf-${kf}`] : []), ...(kn === "true" ? ["kn"] : [])];
    return {
      tag: keys.length === 0 ? base : `${base}-u-${keys.join("-")}`, asks: JSON.stringify({ sensitivity, ignorePunctuation }),
      told: { locale, usage, sensitivity, ignorePunctuation, collation: co ?? "default", numeric: kn === "true", caseFirst: kf ?? "false" },
    };
  };
  const compare = ({ tag, asks }, one, other) => known(ask("compare", tag, asks, one.toWellFormed(), other.toWellFormed()), "these texts cannot be compared");
  class Collator {
    #of; #compare;
    constructor(locales = undefined, options = undefined) {
      this.#of = read(locales, options);
      known(ask("resolve", "collator", this.#of.tag, this.#of.asks), "there is no such collator");
    }
    get compare() { return this.#compare ??= (one, other) => compare(this.#of, String(one), String(other)); }
    resolvedOptions() { return { ...this.#of.told }; }
  }
  let usual;
  const compareTexts = (one, other, locales, options) =>
    compare(locales === undefined && options === undefined ? usual ??= read() : read(locales, options), one, other);

  // The host divides a text piece by piece. The last two ends in a piece may be another with what follows, so the next one begins before them.
  const piece = 8192;
  function* segments(text, granularity) {
    let [start, length] = [0, piece];
    while (start < text.length) {
      let end = Math.min(start + length, text.length);
      const isLast = end === text.length;
      if (!isLast && (text.charCodeAt(end - 1) & 0xfc00) === 0xd800) end++;
      const bytes = known(ask("segments", granularity, text.slice(start, end).toWellFormed()), "a segment of this text is too long");
      const ends = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
      const count = isLast ? ends.length : ends.length - 2;
      if (count <= 0) {
        length *= 2;
        continue;
      }
      let from = 0;
      for (let at = 0; at < count; at++) {
        const to = ends[at] >>> 1;
        yield [start + from, start + to, (ends[at] & 1) === 1];
        from = to;
      }
      [start, length] = [start + from, piece];
    }
  }
  const data = (text, granularity, [from, to, isWordLike]) => {
    const one = { segment: text.slice(from, to), index: from, input: text };
    return granularity === "word" ? { ...one, isWordLike } : one;
  };
  const hidden = Symbol("segments");
  class Segments {
    #text; #granularity; #rest;
    // The ends that were looked at, times two; one more for words.
    #ends = [];
    constructor(key, text, granularity) {
      if (key !== hidden) throw new TypeError("segments are made by Intl.Segmenter");
      [this.#text, this.#granularity, this.#rest] = [text, granularity, segments(text, granularity)];
    }
    containing(index = 0) {
      const at = Math.trunc(Number(index)) || 0;
      if (at < 0 || at >= this.#text.length) return undefined;
      const ends = this.#ends;
      while (Math.floor((ends.at(-1) ?? 0) / 2) <= at) {
        const [, to, isWordLike] = this.#rest.next().value;
        ends.push(to * 2 + Number(isWordLike));
      }
      let [low, high] = [0, ends.length - 1];
      while (low < high) {
        const middle = (low + high) >>> 1;
        if (Math.floor(ends[middle] / 2) > at) high = middle;
        else low = middle + 1;
      }
      const from = low === 0 ? 0 : Math.floor(ends[low - 1] / 2);
      return data(this.#text, this.#granularity, [from, Math.floor(ends[low] / 2), ends[low] % 2 === 1]);
    }
    *[Symbol.iterator]() { for (const found of segments(this.#text, this.#granularity)) yield data(this.#text, this.#granularity, found); }
  }
  class Segmenter {
    #told;
    constructor(locales = undefined, options = undefined) {
      options = given(options);
      matcher(options);
      const { locale } = resolved(locales, {});
      this.#told = { locale, granularity: option(options, "granularity", ["grapheme", "word", "sentence"], "grapheme") };
    }
    segment(text) { return new Segments(hidden, String(text), this.#told.granularity); }
    resolvedOptions() { return { ...this.#told }; }
  }

  class ListFormat {
    #base; #told; #asks;
    constructor(locales = undefined, options = undefined) {
      options = given(options);
      matcher(options);
      const { base, locale } = resolved(locales, {});
      const type = option(options, "type", ["conjunction", "disjunction", "unit"], "conjunction");
      const style = option(options, "style", ["long", "short", "narrow"], "long");
      [this.#base, this.#told, this.#asks] = [base, { locale, type, style }, JSON.stringify({ type, style })];
      known(ask("resolve", "list", base, this.#asks), "there is no such list format");
    }
    format(list) { return joined(this.formatToParts(list)); }
    formatToParts(list) {
      const all = list === undefined ? [] : [...list];
      if (all.some((one) => typeof one !== "string")) throw new TypeError("a list is one of texts");
      return pieces("list", this.#base, this.#asks, JSON.stringify(all.map((one) => one.toWellFormed())));
    }
    resolvedOptions() { return { ...this.#told }; }
  }

  const units = ["second", "minute", "hour", "day", "week", "month", "quarter", "year"];
  class RelativeTimeFormat {
    #of; #told;
    constructor(locales = undefined, options = undefined) {
      options = coerced(options);
      matcher(options);
      const { base, locale, nu } = resolved(locales, { nu: digits(options) });
      const style = option(options, "style", ["long", "short", "narrow"], "long");
      const numeric = option(options, "numeric", ["always", "auto"], "always");
      this.#of = { tag: withDigits(base, nu), style, numeric };
      this.#told = { locale, style, numeric, numberingSystem: system(base, nu) };
    }
    format(value, unit) { return joined(this.formatToParts(value, unit)); }
    formatToParts(value, unit) {
      value = Number(value);
      const singular = String(unit).replace(/s$/, "");
      if (!units.includes(singular)) throw new RangeError(`Invalid unit argument for format() '${String(unit).slice(0, 64)}'`);
      if (!Number.isFinite(value)) throw new RangeError("a time from now is a number");
      const { tag, style, numeric } = this.#of;
      const found = pieces("relative", tag, JSON.stringify({ style, numeric, unit: singular }), Object.is(value, -0) ? "-0" : String(value));
      return found.map((one) => (one.type === "literal" ? one : { ...one, unit: singular }));
    }
    resolvedOptions() { return { ...this.#told }; }
  }
  return {
    Collator: define(Collator, true), Segmenter: define(Segmenter, false), ListFormat: define(ListFormat, false),
    RelativeTimeFormat: define(RelativeTimeFormat, false), compareTexts,
  };
}
