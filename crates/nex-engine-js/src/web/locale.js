// The doors to Intl, which is large: it is loaded when one of them is used first.
"use strict";
({ provide, native }) => {
  let loaded;
  const intl = () => loaded ??= native.part("intl")({
    native, dates: native.part("intl/dates"), numbers: native.part("intl/numbers"), texts: native.part("intl/texts"),
  });
  Object.defineProperty(globalThis, "Intl", {
    get() { provide("Intl", intl().Intl); return intl().Intl; },
    set(value) { provide("Intl", value); },
    configurable: true, enumerable: false,
  });
  const methods = (prototype, all) => {
    for (const [name, value] of Object.entries(all)) Object.defineProperty(prototype, name, { value, writable: true, configurable: true, enumerable: false });
  };
  methods(Date.prototype, {
    toLocaleString(locales = undefined, options = undefined) { return intl().dateText(this, locales, options, "any", "all"); },
    toLocaleDateString(locales = undefined, options = undefined) { return intl().dateText(this, locales, options, "date", "date"); },
    toLocaleTimeString(locales = undefined, options = undefined) { return intl().dateText(this, locales, options, "time", "time"); },
  });
  const { valueOf } = Number.prototype;
  methods(Number.prototype, {
    toLocaleString(locales = undefined, options = undefined) { return intl().numberText(valueOf.call(this), locales, options); },
  });
  const { valueOf: bigValueOf } = BigInt.prototype;
  methods(BigInt.prototype, {
    toLocaleString(locales = undefined, options = undefined) { return intl().numberText(bigValueOf.call(this), locales, options); },
  });
  methods(String.prototype, {
    localeCompare(that, locales = undefined, options = undefined) {
      if (this === undefined || this === null) throw new TypeError("localeCompare needs a text");
      return intl().compareTexts(String(this), String(that), locales, options);
    },
  });
}
