import jmespath from "jmespath";

export default () => jmespath.search({ people: [{ n: "a", age: 30 }, { n: "b", age: 20 }] }, "{old: people[?age > `25`].n | [0], sum: sum(people[].age), sorted: sort_by(people, &age)[*].n}");
