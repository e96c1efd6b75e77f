import { Eta } from "eta/core";

export default () => new Eta().renderString("Hi <%= it.name %>!<% it.list.forEach((x) => { %> <%= x %><% }) %>", { name: "<you>", list: [1, 2] });
