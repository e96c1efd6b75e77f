import { addDays, differenceInCalendarDays, eachDayOfInterval, format, formatDistance, intervalToDuration, isValid, parse, parseISO, startOfWeek } from "date-fns";
import { de } from "date-fns/locale";

export default () => {
  const day = new Date(Date.UTC(2026, 1, 27, 12));
  return {
    format: format(day, "EEEE, do MMMM yyyy HH:mm"), german: format(day, "EEEE, d. MMMM yyyy", { locale: de }),
    added: addDays(day, 3), days: differenceInCalendarDays(new Date(Date.UTC(2026, 11, 24, 12)), day),
    parsed: parse("27.02.2026", "dd.MM.yyyy", new Date(0)), iso: isValid(parseISO("2026-13-01")),
    week: startOfWeek(day, { weekStartsOn: 1 }), each: eachDayOfInterval({ start: day, end: addDays(day, 2) }).length,
    ago: formatDistance(addDays(day, -40), day, { addSuffix: true }), duration: intervalToDuration({ start: 0, end: 3_723_000 }),
  };
};
