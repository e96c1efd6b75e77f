import { NIL, parse, stringify, v4, v5, v7, validate, version } from "uuid";

export default () => {
  const [random, ordered] = [v4(), v7()];
  return [validate(random), version(random), version(ordered), random !== v4(), v5("nex", v5.DNS), stringify(parse(v5("a", v5.URL))), NIL];
};
