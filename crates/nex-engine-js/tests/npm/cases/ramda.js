import * as R from "ramda";

export default () => [R.pipe(R.filter((n) => n > 1), R.map(R.multiply(2)), R.sum)([1, 2, 3]), R.over(R.lensPath(["a", "b"]), R.inc, { a: { b: 1 } }), R.groupBy((n) => (n % 2 ? "odd" : "even"), [1, 2, 3]), R.zipObj(["a", "b"], [1, 2])];
