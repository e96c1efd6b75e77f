import { array, date, number, object, string } from "yup";

const schema = object({ name: string().required().trim(), age: number().positive().integer(), mail: string().email(), born: date().default(() => new Date(0)), tags: array().of(string().min(2)) });

export default async () => [await schema.validate({ name: " a ", age: "7" }), await schema.validate({ age: -1, mail: "x", tags: ["a"] }, { abortEarly: false }).catch((error) => [error.name, [...error.errors].sort()])];
