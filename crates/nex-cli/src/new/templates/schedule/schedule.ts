// Called each time that the schedule in nex.toml comes: once, however many copies run. An error has it called again after a pause.
declare const hostServices: { kv: { increment(key: string, by?: number): number } };

export default (subject: string): void => {
  const run = hostServices.kv.increment("runs");
  console.log(`run ${run} by ${subject}`);
};
