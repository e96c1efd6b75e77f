import Ajv from "ajv";
import addFormats from "ajv-formats";

// Ajv makes code of a schema.
const ajv = new Ajv({ allErrors: true });
addFormats(ajv);
const validate = ajv.compile({
  type: "object", required: ["id", "when"], additionalProperties: false,
  properties: { id: { type: "integer", minimum: 1 }, when: { type: "string", format: "date-time" }, mail: { type: "string", format: "email" } },
});

export default () => [{ id: 1, when: "2026-01-02T03:04:05Z" }, { id: 0, when: "yesterday", more: 1, mail: "x" }]
  .map((value) => (validate(value) ? "fits" : validate.errors.map(({ instancePath, message }) => `${instancePath} ${message}`)));
