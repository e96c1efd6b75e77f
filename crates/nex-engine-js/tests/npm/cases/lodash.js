import _ from "lodash";

const orders = [{ who: "a", n: 3, tags: ["x"] }, { who: "b", n: 1, tags: ["y", "x"] }, { who: "a", n: 2, tags: [] }];

export default () => ({
  grouped: _(orders).groupBy("who").mapValues((of) => _.sumBy(of, "n")).value(), sorted: _.orderBy(orders, ["who", "n"], ["desc", "asc"]),
  tags: _.uniq(_.flatMap(orders, "tags")), deep: _.get({ a: [{ b: 2 }] }, "a[0].b"), merged: _.merge({ a: { b: 1 } }, { a: { c: [1] } }),
  cases: [_.camelCase("foo-bar baz"), _.kebabCase("fooBar"), _.deburr("déjà vu")], chunks: _.chunk(_.range(7), 3), equal: _.isEqual(new Map([[1, { a: 1 }]]), new Map([[1, { a: 1 }]])),
  template: _.template("Hello <%= user %>!")({ user: "you" }), clone: _.cloneDeep({ d: new Date(0), r: /x/g, s: new Set([1]) }).s.size,
});
