// Where a job runs: on this machine, in a container or on a cluster, with the options of each.
import { make } from "/components/charts.js";
import { get } from "../api.js";
import { field } from "../parts.js";
import { word } from "../words.js";

const KINDS = ["local", "torchrun", "docker", "slurm", "kubernetes"];
const OWN_FIELDS = ["kind", "devices", "mounts"]; // have fields of their own here
const HERE = ["local", "torchrun", "docker"]; // run on devices of this machine

// Returns {kind: {option: {isText, usual}}} from the description of the API.
async function optionsOf(signal) {
  const { components } = await (await fetch("/api/openapi.json", { signal })).json();
  return Object.fromEntries(KINDS.map((kind) => {
    const name = `${kind[0].toUpperCase()}${kind.slice(1)}Options`;
    const properties = Object.entries(components.schemas[name].properties);
    const rows = properties.filter(([option]) => !OWN_FIELDS.includes(option));
    return [kind, Object.fromEntries(rows.map(([option, { type, anyOf = [], default: usual }]) => {
      const types = [type, ...anyOf.map((one) => one.type)];
      return [option, { isText: types.includes("string"), usual }];
    }))];
  }));
}

// Returns the form; the draft has the options as POST /jobs takes them.
export async function launcherForm(draft, signal) {
  const [{ devices }, known] = await Promise.all([
    get("/jobs", { signal }), optionsOf(signal),
  ]);
  const gpus = devices.filter(({ kind }) => kind !== "cpu");
  const options = make("div", { class: "fields" });
  const kinds = KINDS.map((kind) => make("label", { class: "pill" },
    make("input", {
      type: "radio", name: "launcher", value: kind, "data-setting": `launcher.${kind}`,
      checked: kind === draft.values.launcher.kind, change: () => choose(kind),
    }), word(`launcher.${kind}`)));

  function choose(kind) {
    if (kind !== draft.values.launcher.kind) draft.set({ launcher: first(kind, gpus) });
    const fields = Object.entries(known[kind]).map(([name, option]) => {
      return optionField(name, kind, option, draft);
    });
    options.replaceChildren(
      make("p", { class: "hint wide" }, word(`launcher.${kind}.about`)),
      HERE.includes(kind) ? deviceField(gpus, kind, draft) : "",
      ...fields, kind === "kubernetes" ? mountsField(draft) : "");
  }
  choose(draft.values.launcher.kind);
  const legend = make("legend", {}, word("launcher.kind"));
  return make("div", {}, make("fieldset", { class: "pills" }, legend, kinds), options);
}

function first(kind, gpus) {
  return HERE.includes(kind) && gpus.length ? { kind, devices: [indexOf(gpus[0])] } : { kind };
}

const indexOf = ({ name }) => Number(name.replace(/\D/g, ""));

function change(draft, name, value) {
  const launcher = { ...draft.values.launcher, [name]: value };
  if (value === null || value === undefined) delete launcher[name];
  draft.set({ launcher });
}

function optionField(name, kind, { isText, usual }, draft) {
  const input = make("input", {
    type: isText ? "text" : "number", min: 0, placeholder: usual ?? word("launcher.optional"),
    value: draft.values.launcher[name] ?? "", "data-setting": `launcher.${kind}.${name}`,
    input: () => {
      const text = input.value.trim();
      change(draft, name, text === "" ? null : isText ? text : Number(text));
    },
  });
  return field(word(`launcher.option.${name}`), input);
}

function deviceField(gpus, kind, draft) {
  if (!gpus.length) return make("p", { class: "hint wide" }, word("launcher.cpu.only"));
  const isOne = kind === "local", chosen = draft.values.launcher.devices || [];
  const boxes = gpus.map((gpu) => make("label", { class: "pill" },
    make("input", {
      type: isOne ? "radio" : "checkbox", name: "device", value: indexOf(gpu),
      checked: chosen.includes(indexOf(gpu)), change: update,
    }), `${gpu.label || gpu.name}${gpu.job ? ` (${word("launcher.busy")})` : ""}`));
  const part = make("fieldset", { class: "pills wide" },
    make("legend", {}, word("launcher.devices")), boxes, isOne ? cpuBox() : null);
  function cpuBox() {
    return make("label", { class: "pill" }, make("input", {
      type: "radio", name: "device", value: "cpu", checked: !chosen.length, change: update,
    }), "CPU");
  }
  function update() {
    const on = [...part.querySelectorAll("input:checked")].map(({ value }) => value);
    change(draft, "devices", on.filter((value) => value !== "cpu").map(Number));
  }
  return part;
}

// A line for each volume claim: CLAIM:/PATH.
function mountsField(draft) {
  const mounts = draft.values.launcher.mounts || [];
  const area = make("textarea", { rows: 2, spellcheck: "false", placeholder: "data:/data",
    "data-setting": "launcher.kubernetes.mounts", input: () => {
      const lines = area.value.split("\n").map((line) => line.trim()).filter(Boolean);
      change(draft, "mounts", lines.map((line) => {
        const [claim, path = ""] = line.split(/:(.*)/s);
        return { claim, path };
      }));
    } });
  area.value = mounts.map(({ claim, path }) => `${claim}:${path}`).join("\n");
  return field(word("launcher.option.mounts"), area, { hint: word("launcher.mounts.hint") });
}
