// Called each time that the schedule in nex.toml comes: once, however many copies run. An error has it called again after a pause.
export default (subject, payload) => {
  const run = hostServices.kv.increment("runs");
  console.log(`run ${run} by ${subject}`);
};
