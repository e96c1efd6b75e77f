// Intl.NumberFormat and Intl.PluralRules.
"use strict";
({ ask, known, option, number, coerced, matcher, resolved, digits, withDigits, system, pieces, joined, define }) => {
  const modes = ["ceil", "floor", "expand", "trunc", "halfCeil", "halfFloor", "halfExpand", "halfTrunc", "halfEven"];
  const increments = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 2500, 5000];
  const units = ["year", "month", "week", "day", "hour", "minute", "second", "millisecond", "microsecond", "nanosecond"];

  // How many digits are shown, and how the rest is rounded.
  const rounding = (options, leastFraction, mostFraction, isCompact) => {
    const minimumIntegerDigits = number(options.minimumIntegerDigits, 1, 21, "minimumIntegerDigits", 1);
    let { minimumFractionDigits: leastF, maximumFractionDigits: mostF, minimumSignificantDigits: leastS, maximumSignificantDigits: mostS } = options;
    const roundingIncrement = number(options.roundingIncrement, 1, 5000, "roundingIncrement", 1);
    if (!increments.includes(roundingIncrement)) throw new RangeError("roundingIncrement value is out of range");
    const roundingMode = option(options, "roundingMode", modes, "halfExpand");
    const roundingPriority = option(options, "roundingPriority", ["auto", "morePrecision", "lessPrecision"], "auto");
    const trailingZeroDisplay = option(options, "trailingZeroDisplay", ["auto", "stripIfInteger"], "auto");
    const all = { minimumIntegerDigits, roundingIncrement, roundingMode, roundingPriority, trailingZeroDisplay };
    if (roundingIncrement !== 1) mostFraction = leastFraction;
    const [hasS, hasF] = [leastS !== undefined || mostS !== undefined, leastF !== undefined || mostF !== undefined];
    const isAuto = roundingPriority === "auto";
    const needsS = !isAuto || hasS;
    const needsF = !isAuto || (!hasS && (hasF || !isCompact));
    if (needsS) {
      all.minimumSignificantDigits = number(leastS, 1, 21, "minimumSignificantDigits", 1);
      all.maximumSignificantDigits = number(mostS, all.minimumSignificantDigits, 21, "maximumSignificantDigits", 21);
    }
    if (needsF) {
      leastF = number(leastF, 0, 100, "minimumFractionDigits");
      mostF = number(mostF, 0, 100, "maximumFractionDigits");
      if (leastF === undefined) leastF = Math.min(leastFraction, mostF ?? leastFraction);
      else if (mostF === undefined) mostF = Math.max(mostFraction, leastF);
      else if (leastF > mostF) throw new RangeError("maximumFractionDigits value is out of range");
      Object.assign(all, { minimumFractionDigits: leastF, maximumFractionDigits: mostF ?? Math.max(mostFraction, leastF) });
    }
    if (!needsS && !needsF) {
      Object.assign(all, { minimumFractionDigits: 0, maximumFractionDigits: 0, minimumSignificantDigits: 1, maximumSignificantDigits: 2 });
      all.roundingPriority = "morePrecision";
    }
    if (roundingIncrement !== 1) {
      if (needsS) throw new TypeError("roundingIncrement goes with fraction digits only");
      if (all.minimumFractionDigits !== all.maximumFractionDigits) throw new RangeError("roundingIncrement needs as many fraction digits at most as at least");
    }
    return all;
  };

  const read = (locales, options) => {
    options = coerced(options);
    matcher(options);
    const found = resolved(locales, { nu: digits(options) });
    const style = option(options, "style", ["decimal", "percent", "currency", "unit"], "decimal");
    const currency = option(options, "currency")?.toUpperCase();
    if (currency !== undefined && !/^[A-Z]{3}$/.test(currency)) throw new RangeError(`Invalid currency code : ${currency.slice(0, 64)}`);
    const currencyDisplay = option(options, "currencyDisplay", ["code", "symbol", "narrowSymbol", "name"], "symbol");
    const currencySign = option(options, "currencySign", ["standard", "accounting"], "standard");
    const unit = option(options, "unit");
    if (unit !== undefined && !units.includes(unit)) throw new RangeError(`unit ${unit.slice(0, 64)} is not known here: ${units.join(", ")} are`);
    const unitDisplay = option(options, "unitDisplay", ["short", "narrow", "long"], "short");
    if (style === "currency" && currency === undefined) throw new TypeError("Currency code is required with currency style.");
    if (style === "unit" && unit === undefined) throw new TypeError("Required option \"unit\" must not be undefined");
    const notation = option(options, "notation", ["standard", "scientific", "engineering", "compact"], "standard");
    const fraction = style === "currency" && notation === "standard" ? Number(known(ask("fraction", currency), `Invalid currency code : ${currency}`)) : 0;
    const most = style === "currency" ? fraction : style === "percent" ? 0 : 3;
    const digit = rounding(options, fraction, most, notation === "compact");
    const compactDisplay = option(options, "compactDisplay", ["short", "long"], "short");
    const grouping = grouped(options.useGrouping, notation === "compact" ? "min2" : "auto");
    const signDisplay = option(options, "signDisplay", ["auto", "never", "always", "exceptZero", "negative"], "auto");
    const asks = JSON.stringify({
      style, currency, currencyDisplay, isAccounting: currencySign === "accounting", unit, unitDisplay,
      notation: notation === "compact" ? compactDisplay : notation, signDisplay, grouping: grouping === false ? "never" : grouping, ...digit,
    });
    const told = { style };
    if (style === "currency") Object.assign(told, { currency, currencyDisplay, currencySign });
    if (style === "unit") Object.assign(told, { unit, unitDisplay });
    const { roundingIncrement, roundingMode, roundingPriority, trailingZeroDisplay, ...counts } = digit;
    Object.assign(told, counts, { useGrouping: grouping, notation });
    if (notation === "compact") told.compactDisplay = compactDisplay;
    Object.assign(told, { signDisplay, roundingMode, roundingIncrement, trailingZeroDisplay, roundingPriority });
    return { ...found, tag: withDigits(found.base, found.nu), asks, told };
  };
  const grouped = (value, fallback) => {
    if (value === undefined) return fallback;
    if (value === true) return "always";
    if (!value) return false;
    value = String(value);
    if (value === "true" || value === "false") return fallback;
    if (!["min2", "auto", "always"].includes(value)) throw new RangeError(`Value ${value.slice(0, 64)} out of range for the option useGrouping`);
    return value;
  };

  // A number as a text that loses nothing.
  const exact = (value) => {
    if (typeof value === "object" && value !== null) value = typeof value.valueOf() === "object" ? String(value) : value.valueOf();
    if (typeof value === "bigint") return String(value);
    if (typeof value === "string" && /^\s*-?(\d+\.?|\d+\.\d+)\s*$/.test(value) && value.length <= 1000) return value.trim().replace(/\.$/, "");
    value = Number(value);
    return Object.is(value, -0) ? "-0" : String(value);
  };

  class NumberFormat {
    #of; #format;
    constructor(locales = undefined, options = undefined) {
      this.#of = read(locales, options);
      known(ask("resolve", "number", this.#of.tag, this.#of.asks), "there is no such number format");
    }
    get format() { return this.#format ??= (value = undefined) => joined(pieces("number", this.#of.tag, this.#of.asks, exact(value))); }
    formatToParts(value = undefined) { return pieces("number", this.#of.tag, this.#of.asks, exact(value)); }
    formatRange(from, to) { return joined(this.formatRangeToParts(from, to)); }
    formatRangeToParts(from, to) {
      if (from === undefined || to === undefined) throw new TypeError("a range has two numbers");
      if (exact(from) === "NaN" || exact(to) === "NaN") throw new RangeError("a range does not begin or end with NaN");
      const [first, last] = [this.formatToParts(from), this.formatToParts(to)];
      const named = (all, source) => all.map((piece) => ({ ...piece, source }));
      if (joined(first) === joined(last)) return [{ type: "approximatelySign", value: "~", source: "shared" }, ...named(first, "shared")];
      return [...named(first, "startRange"), { type: "literal", value: " – ", source: "shared" }, ...named(last, "endRange")];
    }
    resolvedOptions() {
      const { locale, base, nu, told } = this.#of;
      return { locale, numberingSystem: system(base, nu), ...told };
    }
  }

  class PluralRules {
    #of;
    constructor(locales = undefined, options = undefined) {
      options = coerced(options);
      matcher(options);
      const type = option(options, "type", ["cardinal", "ordinal"], "cardinal");
      const digit = rounding(options, 0, 3, false);
      const { base, locale } = resolved(locales, {});
      this.#of = { base, locale, asks: JSON.stringify({ type, ...digit }), told: { type, ...digit } };
      known(ask("resolve", "plural", base, this.#of.asks), "there are no such plural rules");
    }
    select(value) { return known(ask("format", "plural", this.#of.base, this.#of.asks, exact(Number(value))), "this number has no plural"); }
    resolvedOptions() {
      const { base, locale, asks, told } = this.#of;
      return { locale, ...told, pluralCategories: JSON.parse(ask("resolve", "plural", base, asks)) };
    }
  }

  const numberText = (value, locales, options) => {
    const { tag, asks } = read(locales, options);
    return joined(pieces("number", tag, asks, exact(value)));
  };
  return { NumberFormat: define(NumberFormat, true), PluralRules: define(PluralRules, false), numberText };
}
