// The API: a reader of its own description.
import { make } from "/components/charts.js";
import { describeApi } from "../api.js";
import { copyableCommand, pageHead, skeleton } from "../parts.js";
import { word } from "../words.js";
import { exampleOf, fieldsOf, typeParts } from "./docs_schema.js";

export const title = "docs.title";

const METHODS = ["get", "post", "put", "patch", "delete"];
const COLUMNS = ["name", "type", "about"];

const headRow = () => make("thead", {}, make("tr", {},
  COLUMNS.map((name) => make("th", { scope: "col" }, word(`docs.${name}`)))));

// Returns a description with the parts between backticks as code.
const prose = (text) => text.split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part));

// Returns a table of [{name, schema, required, place, description}].
function fieldTable(fields) {
  const rows = fields.map(({ name, schema, required, place, description }) => make("tr", {},
    make("th", { scope: "row" }, make("code", {}, name),
      required ? make("small", { class: "needed" }, ` ${word("docs.required")}`) : null),
    make("td", {}, typeParts(schema),
      place ? make("small", {}, ` ${word(`docs.in.${place}`)}`) : null),
    make("td", {}, prose(description || ""))));
  return make("div", { class: "scroll" }, make("table", { class: "field-table" }, headRow(),
    make("tbody", {}, rows)));
}

// Returns [media type, schema] of a body or an answer.
const contentOf = (part) => Object.entries(part?.content || {}).map(([type, { schema }]) => {
  return [type, schema || {}];
});

function curlOf(api, method, path, operation) {
  const words = ["curl"];
  if (method !== "get") words.push("-X", method.toUpperCase(), "-H 'X-Visionloop: 1'");
  words.push("-H \"Authorization: Bearer $TOKEN\"");
  const [type, schema] = contentOf(operation.requestBody)[0] || [];
  if (type === "application/json") {
    const example = JSON.stringify(exampleOf(api, schema)).replaceAll("'", "'\\''");
    words.push("-H 'Content-Type: application/json'", `-d '${example}'`);
  } else if (type) words.push("--data-binary @image.jpg");
  const needed = (operation.parameters || []).filter((one) => one.required && one.in === "query");
  const values = needed.map(({ name }) => `${name}=${name.toUpperCase()}`).join("&");
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => name.toUpperCase());
  words.push(`'${location.origin}${filled}${values ? `?${values}` : ""}'`);
  return words.join(" ");
}

function responses(operation) {
  return Object.entries(operation.responses).map(([status, answer]) => {
    const types = contentOf(answer).map(([type, schema]) => {
      return make("span", {}, type === "application/json" ? null : make("code", {}, `${type} `),
        typeParts(schema));
    });
    return { status, types, text: answer.description };
  });
}

// Returns the block of an endpoint, which a click opens.
function endpoint(api, method, path, operation) {
  const parameters = (operation.parameters || []).map((one) => ({ ...one, place: one.in }));
  const bodies = contentOf(operation.requestBody);
  const good = responses(operation).filter(({ status }) => status < "400");
  const bad = responses(operation).filter(({ status }) => status >= "400");
  const block = make("details", { class: "endpoint" });
  const about = operation.description || operation.summary;
  block.append(make("summary", {},
    make("span", { class: `method ${method}` }, method.toUpperCase()),
    make("code", {}, path), make("span", { class: "hint" }, prose(about.split("\n")[0]))));
  // an open block is drawn when it is opened: there are many
  block.addEventListener("toggle", () => {
    if (block.childElementCount > 1) return;
    block.append(make("div", { class: "endpoint-body" },
      make("p", { class: "about" }, prose(about)),
      parameters.length ? [make("h3", {}, word("docs.parameters")), fieldTable(parameters)] : null,
      bodies.map(([type, schema]) => [
        make("h3", {}, word("docs.body"), " ", make("small", {}, type), " ", typeParts(schema)),
        fieldsOf(api, schema).length ? fieldTable(fieldsOf(api, schema)) : null,
      ]).flat(),
      make("h3", {}, word("docs.responses")),
      make("ul", { class: "responses" },
        good.map(({ status, types, text }) => make("li", {}, make("b", {}, status), " ",
          types.length ? types : text)),
        make("li", {}, make("b", {}, bad.map(({ status }) => status).join(", ")), " ",
          word("docs.problem"))),
      make("h3", {}, word("docs.example")),
      copyableCommand(curlOf(api, method, path, operation))));
  });
  return block;
}

function typeBlock(api, name, schema) {
  const fields = fieldsOf(api, schema);
  const values = schema.enum ? make("p", {}, JSON.stringify(schema.enum)) : null;
  return make("section", { id: `type-${name}`, class: "type" },
    make("h3", {}, make("code", {}, name)),
    schema.description ? make("p", { class: "about" }, prose(schema.description)) : null,
    values, fields.length ? fieldTable(fields) : null);
}

export async function show(main, { signal }) {
  const waiting = skeleton(8);
  main.append(pageHead(word("docs.heading")), make("p", {}, word("docs.text")),
    copyableCommand("TOKEN=$(cat ~/.local/state/visionloop/studio/token)"), waiting);
  const api = await describeApi({ signal });
  const groups = new Map();
  for (const [path, operations] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((one) => one in operations)) {
      const operation = operations[method], tag = operation.tags?.[0] ?? "";
      const text = `${method} ${path} ${operation.description ?? ""}`.toLowerCase();
      const block = endpoint(api, method, path, operation);
      groups.set(tag, [...(groups.get(tag) || []), { block, text }]);
    }
  }
  const sections = [...groups].map(([tag, rows]) => {
    const blocks = rows.map(({ block }) => block);
    return { rows, part: make("section", { id: `tag-${tag}` }, make("h2", {}, tag), blocks) };
  });
  const search = make("input", { type: "search", placeholder: word("docs.search"), input: () => {
    const wanted = search.value.toLowerCase();
    for (const { rows, part } of sections) {
      for (const { block, text } of rows) block.hidden = !text.includes(wanted);
      part.hidden = rows.every(({ block }) => block.hidden);
    }
  } });
  search.setAttribute("aria-label", word("docs.search"));
  const schemas = Object.entries(api.components.schemas);
  const types = schemas.map(([name, schema]) => typeBlock(api, name, schema));
  const links = [...groups.keys()].map((tag) => make("a", { href: `#tag-${tag}` }, tag));
  links.push(make("a", { href: "#types" }, word("docs.types")));
  waiting.replaceWith(
    make("div", { class: "line wrap docs-bar" }, search,
      make("nav", { "aria-label": word("docs.tags") }, links)),
    ...sections.map(({ part }) => part),
    make("h2", { id: "types" }, word("docs.types")), ...types);
}
