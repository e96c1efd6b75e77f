import Joi from "joi";

const schema = Joi.object({ name: Joi.string().alphanum().min(3).required(), year: Joi.number().integer().min(1900).max(2100), tags: Joi.array().items(Joi.string()).unique() }).with("name", "year");
export default () => [schema.validate({ name: "abc", year: "1994" }).value, schema.validate({ name: "a", tags: ["x", "x"] }, { abortEarly: false }).error.details.map(({ message }) => message)];
