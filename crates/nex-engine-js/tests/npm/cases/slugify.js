import slugify from "slugify";

export default () => [slugify("Größe: 10 € & mehr!", { lower: true, strict: true, locale: "de" }), slugify("a b")];
