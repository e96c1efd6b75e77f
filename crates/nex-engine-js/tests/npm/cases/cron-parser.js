import { CronExpressionParser } from "cron-parser";

export default () => { const it = CronExpressionParser.parse("0 9 * * 1-5", { currentDate: "2026-02-27T10:00:00Z", tz: "UTC" }); return [it.next().toISOString(), it.next().toISOString()]; };
