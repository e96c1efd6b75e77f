import { debounce, keyBy, partition, throttle } from "lodash-es";

export default async () => {
  const seen = [];
  const [late, rare] = [debounce((x) => seen.push(x), 5), throttle((x) => seen.push(x), 5)];
  late(1); late(2); rare(3); rare(4);
  await new Promise((resolve) => setTimeout(resolve, 60));
  return [seen.sort(), keyBy([{ id: "a" }, { id: "b" }], "id"), partition([1, 2, 3], (n) => n % 2)];
};
