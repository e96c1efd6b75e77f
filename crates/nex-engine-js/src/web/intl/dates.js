// Intl.DateTimeFormat. The calendar is the Gregorian one; the default time zone is UTC.
"use strict";
({ ask, known, option, flag, number, coerced, matcher, resolved, digits, withDigits, system, pieces, joined, define }) => {
  const texts = ["narrow", "short", "long"];
  const figures = ["2-digit", "numeric"];
  const styles = ["full", "long", "medium", "short"];
  const cycles = ["h11", "h12", "h23", "h24"];
  const fields = {
    weekday: texts, era: texts, year: figures, month: [...figures, ...texts], day: figures, dayPeriod: texts, hour: figures, minute: figures, second: figures,
  };
  const zoneNames = ["short", "long", "shortOffset", "longOffset", "shortGeneric", "longGeneric"];

  // What was asked for: the host's options, and those that are told again.
  const read = (locales, options, required, defaults) => {
    options = coerced(options);
    matcher(options);
    const calendar = option(options, "calendar");
    if (calendar !== undefined && !/^[a-z0-9]{3,8}(-[a-z0-9]{3,8})*$/i.test(calendar)) throw new RangeError(`Invalid calendar: ${calendar.slice(0, 64)}`);
    const nu = digits(options);
    const hour12 = flag(options, "hour12");
    const hourCycle = option(options, "hourCycle", cycles);
    const found = resolved(locales, { ca: [calendar?.toLowerCase(), ["gregory"]], hc: [hour12 === undefined ? hourCycle : "", cycles], nu });
    const asked = options.timeZone === undefined ? "UTC" : String(options.timeZone);
    const timeZone = known(ask("zone", asked.toWellFormed()), `Invalid time zone specified: ${asked.slice(0, 64)}`);
    const chosen = {};
    for (const [name, values] of Object.entries(fields)) chosen[name] = option(options, name, values);
    chosen.fractionalSecondDigits = number(options.fractionalSecondDigits, 1, 3, "fractionalSecondDigits");
    chosen.timeZoneName = option(options, "timeZoneName", zoneNames);
    option(options, "formatMatcher", ["basic", "best fit"]);
    const dateStyle = option(options, "dateStyle", styles);
    const timeStyle = option(options, "timeStyle", styles);
    const isStyled = dateStyle !== undefined || timeStyle !== undefined;
    if (isStyled) {
      const other = Object.keys(chosen).find((name) => chosen[name] !== undefined);
      if (other !== undefined) throw new TypeError(`Can't set option ${other} when ${dateStyle === undefined ? "timeStyle" : "dateStyle"} is used`);
      if (required === "date" && timeStyle !== undefined) throw new TypeError("Invalid option : timeStyle");
      if (required === "time" && dateStyle !== undefined) throw new TypeError("Invalid option : dateStyle");
    } else {
      const some = (...names) => names.some((name) => chosen[name] !== undefined);
      const hasDate = required !== "time" && some("weekday", "year", "month", "day");
      const hasTime = required !== "date" && some("dayPeriod", "hour", "minute", "second", "fractionalSecondDigits");
      if (!hasDate && !hasTime) {
        if (defaults !== "time") chosen.year = chosen.month = chosen.day = "numeric";
        if (defaults !== "date") chosen.hour = chosen.minute = chosen.second = "numeric";
      }
    }
    const cycle = hour12 === undefined ? found.hc : hour12 ? "c12" : "c24";
    const asks = JSON.stringify({ timeZone, hourCycle: cycle, ...chosen, dateStyle, timeStyle });
    return { ...found, tag: withDigits(found.base, found.nu), asks, timeZone, chosen, dateStyle, timeStyle };
  };
  const time = (date) => {
    const value = date === undefined ? Date.now() : Number(date);
    if (!(Math.abs(value) <= 8.64e15)) throw new RangeError("Invalid time value");
    return String(Math.trunc(value));
  };
  const write = ({ tag, asks }, at) => pieces("date", tag, asks, at);
  // As a whole it has plain spaces before AM and PM, as in other engines: programs read such texts again.
  const text = (all) => joined(all).replace(/\u202f/g, " ");

  class DateTimeFormat {
    #of; #format;
    constructor(locales = undefined, options = undefined) {
      this.#of = read(locales, options, "any", "date");
      known(ask("resolve", "date", this.#of.tag, this.#of.asks), "there is no such date format");
    }
    get format() { return this.#format ??= (date = undefined) => text(write(this.#of, time(date))); }
    formatToParts(date = undefined) { return write(this.#of, time(date)); }
    formatRange(from, to) { return text(this.formatRangeToParts(from, to)); }
    formatRangeToParts(from, to) {
      if (from === undefined || to === undefined) throw new TypeError("a range has two dates");
      const [first, last] = [time(from), time(to)].map((at) => write(this.#of, at));
      const named = (all, source) => all.map((piece) => ({ ...piece, source }));
      if (joined(first) === joined(last)) return named(first, "shared");
      return [...named(first, "startRange"), { type: "literal", value: " – ", source: "shared" }, ...named(last, "endRange")];
    }
    resolvedOptions() {
      const { tag, asks, locale, base, nu, timeZone, chosen, dateStyle, timeStyle } = this.#of;
      const { hourCycle, ...widths } = JSON.parse(ask("resolve", "date", tag, asks));
      const all = { locale, calendar: "gregory", numberingSystem: system(base, nu), timeZone };
      if (hourCycle !== undefined) Object.assign(all, { hourCycle, hour12: hourCycle === "h11" || hourCycle === "h12" });
      const { fractionalSecondDigits, timeZoneName } = chosen;
      if (dateStyle === undefined && timeStyle === undefined) {
        for (const name of Object.keys(fields)) all[name] = widths[name];
        Object.assign(all, { fractionalSecondDigits, timeZoneName });
      }
      Object.assign(all, { dateStyle, timeStyle });
      return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
    }
  }

  const { getTime } = Date.prototype;
  const dateText = (date, locales, options, required, defaults) => {
    const value = getTime.call(date);
    const of = read(locales, options, required, defaults);
    return Number.isNaN(value) ? "Invalid Date" : text(write(of, time(value)));
  };
  return { DateTimeFormat: define(DateTimeFormat, true), dateText };
}
