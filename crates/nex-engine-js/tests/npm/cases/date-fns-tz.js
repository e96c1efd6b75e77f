import { formatInTimeZone, fromZonedTime, toZonedTime } from "date-fns-tz";

export default () => {
  const at = new Date("2026-07-01T10:00:00Z");
  return [formatInTimeZone(at, "America/New_York", "yyyy-MM-dd HH:mm xxx"), formatInTimeZone(at, "Europe/Berlin", "HH:mm"),
    fromZonedTime("2026-01-15 09:30", "Asia/Tokyo"), toZonedTime(at, "Asia/Kolkata").getHours()];
};
