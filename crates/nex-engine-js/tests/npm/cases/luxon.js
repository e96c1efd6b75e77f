import { DateTime, Duration, Interval, Settings } from "luxon";

Settings.defaultZone = "utc";
Settings.defaultLocale = "en-US";

export default () => {
  const at = DateTime.fromISO("2026-03-28T23:30:00Z");
  const berlin = at.setZone("Europe/Berlin");
  return {
    berlin: berlin.toISO(), later: berlin.plus({ hours: 2 }).toISO(), day: berlin.plus({ days: 1 }).toISO(), offset: berlin.plus({ days: 1 }).offset,
    format: at.toFormat("cccc, d LLLL yyyy HH:mm"), german: at.setLocale("de").toFormat("cccc, d. LLLL yyyy"),
    duration: Duration.fromObject({ minutes: 135 }).shiftTo("hours", "minutes").toObject(), days: Interval.after(at, { days: 3 }).count("days"),
    parsed: DateTime.fromFormat("27.02.2026 14:05", "dd.MM.yyyy HH:mm", { zone: "America/New_York" }).toUTC().toISO(), invalid: DateTime.fromISO("2026-13-01").invalidReason,
    local: at.setZone("America/New_York").toLocaleString(DateTime.DATE_SHORT),
  };
};
