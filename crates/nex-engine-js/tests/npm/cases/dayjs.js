import dayjs from "dayjs";
import "dayjs/locale/fr.js";
import relativeTime from "dayjs/plugin/relativeTime.js";
import utc from "dayjs/plugin/utc.js";
import weekOfYear from "dayjs/plugin/weekOfYear.js";

dayjs.extend(utc); dayjs.extend(relativeTime); dayjs.extend(weekOfYear);

export default () => {
  const at = dayjs.utc("2026-02-27T10:00:00Z");
  return [at.format("dddd D MMMM YYYY"), at.locale("fr").format("dddd D MMMM"), at.add(1, "month").toISOString(), at.from(at.add(3, "day")), at.week(), at.diff("2026-01-01", "day")];
};
