// Types of an OpenAPI description: as text, as fields, as an example.
import { make } from "/components/charts.js";

const PREFIX = "#/components/schemas/";
const DEPTH = 4; // of nested objects in an example

const nameOf = (ref) => ref.slice(PREFIX.length);
export function resolved(api, schema) {
  return schema.$ref ? api.components.schemas[nameOf(schema.$ref)] : schema;
}

// Returns the name of a type, with links to the types that are described.
export function typeParts(schema) {
  if (schema.$ref) {
    const name = nameOf(schema.$ref);
    return [make("a", { href: `#type-${name}` }, name)];
  }
  const choices = schema.anyOf || schema.oneOf || schema.allOf;
  if (choices) {
    return choices.flatMap((one, i) => (i ? [" | ", ...typeParts(one)] : typeParts(one)));
  }
  if ("const" in schema) return [JSON.stringify(schema.const)];
  if (schema.enum) return [schema.enum.map((one) => JSON.stringify(one)).join(" | ")];
  if (schema.type === "array") return ["[", ...typeParts(schema.items || {}), "]"];
  if (schema.type === "object" && typeof schema.additionalProperties === "object") {
    return ["{name: ", ...typeParts(schema.additionalProperties), "}"];
  }
  return [`${schema.type ?? "any"}${limits(schema)}`];
}

function limits({ minimum, maximum, maxLength, maxItems }) {
  const parts = [];
  if (minimum !== undefined) parts.push(`\u2265 ${minimum}`);
  if (maximum !== undefined && maximum < 1e9) parts.push(`\u2264 ${maximum}`);
  if (maxLength !== undefined) parts.push(`\u2264 ${maxLength} characters`);
  if (maxItems !== undefined) parts.push(`\u2264 ${maxItems} items`);
  return parts.length ? ` (${parts.join(", ")})` : "";
}

// Returns the fields of an object: [{name, schema, required, description}].
export function fieldsOf(api, schema) {
  const { properties = {}, required = [] } = resolved(api, schema);
  return Object.entries(properties).map(([name, one]) => {
    const hasDefault = one.default !== undefined && one.default !== null;
    const preset = hasDefault ? ` (default: ${JSON.stringify(one.default)})` : "";
    const description = `${one.description ?? ""}${preset}`.trim();
    return { name, schema: one, required: required.includes(name), description };
  });
}

// Returns a value that fits a type, with the required fields of objects.
export function exampleOf(api, given, depth = 0) {
  const schema = resolved(api, given);
  if (schema.default !== undefined) return schema.default;
  if ("const" in schema) return schema.const;
  if (schema.enum) return schema.enum[0];
  const choice = (schema.anyOf || schema.oneOf || schema.allOf)?.[0];
  if (choice) return exampleOf(api, choice, depth);
  if (schema.type === "object") {
    if (depth > DEPTH) return {};
    const needed = (schema.required || []).map((name) => {
      return [name, exampleOf(api, schema.properties[name], depth + 1)];
    });
    return Object.fromEntries(needed);
  }
  const number = schema.minimum ?? 1;
  return { string: "text", integer: number, number, boolean: true, array: [] }[schema.type] ?? null;
}
