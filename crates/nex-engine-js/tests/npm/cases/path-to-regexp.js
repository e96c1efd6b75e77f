import { compile, match } from "path-to-regexp";

export default () => [match("/users/:id{/:tab}")("/users/7/posts"), match("/files/*path")("/files/a/b"), match("/a")("/b"), compile("/u/:id")({ id: "ä b" })];
