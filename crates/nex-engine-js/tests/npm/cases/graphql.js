import { buildSchema, graphql } from "graphql";

const schema = buildSchema("type Query { user(id: ID!): User } type User { id: ID! name: String friends: [User!]! }");
const rootValue = { user: async ({ id }) => ({ id, name: `user ${id}`, friends: () => [{ id: "2", name: "b", friends: [] }] }) };

export default async () => [await graphql({ schema, rootValue, source: '{ user(id: "1") { name friends { id name } } }' }), await graphql({ schema, rootValue, source: "{ nothing }" })];
