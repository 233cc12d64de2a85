// Fourth step: the settings, those that matter first before all others, and where the job runs.
import { make } from "/components/charts.js";
import { get } from "../api.js";
import { errorBox, field } from "../parts.js";
import { word } from "../words.js";
import { settingsPath, valueOf } from "./new_draft.js";
import { launcherForm } from "./new_launcher.js";

const CHANGE_OTHERS = ["preset", "from_scratch"]; // the values that other settings have by default
const SETTING_OF = { runName: "run_name" };
const NUMBERS = ["int", "float"];

async function draw(place, { draft, signal }) {
  const load = () => get(settingsPath(draft.values), { signal });
  let table = await load();
  const problem = make("div"), rows = new Map();

  // Shows the values that settings have with another preset; the form stays as it is.
  async function reload() {
    table = await load();
    problem.replaceChildren(table.error ? errorBox(table.error) : "");
    for (const group of table.groups) {
      for (const setting of group.settings) rows.get(setting.name).update(setting);
    }
  }

  function row(setting) {
    const part = settingField(setting, draft, () => {
      if (CHANGE_OTHERS.includes(setting.name)) reload();
    }, signal);
    rows.set(setting.name, part);
    return part;
  }

  const all = table.groups.flatMap(({ settings }) => settings);
  const first = table.first.map((name) => row(all.find((setting) => setting.name === name)));
  const groups = table.groups.map(({ name, settings }) => {
    const others = settings.filter(({ important }) => !important);
    if (!others.length) return "";
    const changed = others.some((setting) => setting.name in draft.values.settings);
    return make("details", { open: changed, class: "group" },
      make("summary", {}, word(`group.${name}`), " ",
        make("span", { class: "hint" }, String(others.length))),
      make("div", { class: "fields" }, others.map(row)));
  });
  if (table.error) problem.append(errorBox(table.error));
  place.replaceChildren(problem,
    make("p", {}, word("new.settings.text", { model: table.model, preset: table.preset })),
    make("div", { class: "fields" }, first),
    make("h3", {}, word("new.settings.others")), ...groups,
    make("h3", {}, word("new.launcher")), await launcherForm(draft, signal),
    make("h3", {}, word("new.about.run")), nameFields(draft));
}

function nameFields(draft) {
  const text = (name, tag, limit) => make(tag, {
    ...(tag === "input" ? { type: "text", value: draft.values[name] } : { rows: 2 }),
    maxlength: limit, "data-setting": SETTING_OF[name] || name,
    input: (event) => draft.set({ [name]: event.target.value }),
  });
  const note = text("note", "textarea", 10000);
  note.value = draft.values.note;
  return make("div", { class: "fields" },
    field(word("new.run.name"), text("runName", "input", 100), { hint: word("new.run.name.hint") }),
    field(word("new.job.name"), text("name", "input", 200), { hint: word("new.job.name.hint") }),
    field(word("new.note"), note));
}

// Returns the field of a setting. Empty means: by preset and model, whose value it shows.
function settingField(setting, draft, changed, signal) {
  const { name, type, help } = setting, given = draft.values.settings[name];
  const isChoice = type === "choice" || type === "bool";
  const input = isChoice ? make("select") : make("input", {
    type: "text", inputmode: type === "int" || type === "float" ? "decimal" : null,
    autocomplete: "off", spellcheck: "false",
  });
  input.dataset.setting = name;
  const hint = [helpOf(name, help).replace(/\.?$/, "."), rangeOf(setting)].join(" ").trim();
  const part = field(name, input, { hint });
  part.classList.add("setting");
  const flag = make("code", {}, setting.flag);
  part.firstChild.append(" ", flag);

  part.update = ({ value }) => {
    const byDefault = shown(value);
    if (!isChoice) {
      input.placeholder = byDefault;
      return;
    }
    const choices = type === "bool" ? ["true", "false"] : setting.choices;
    const options = choices.map((choice) => make("option", { value: choice }, shown(choice)));
    const chosen = input.options.length ? input.value : given === undefined ? "" : String(given);
    input.replaceChildren(
      make("option", { value: "" }, word("new.by.default", { value: byDefault })), ...options);
    input.value = chosen;
  };
  part.update(setting);
  if (!isChoice && given !== undefined) input.value = String(given);
  const mark = () => part.classList.toggle("changed", name in draft.values.settings);

  input.addEventListener(isChoice ? "change" : "input", () => {
    const value = valueOf(type, input.value);
    draft.setSetting(name, input.value === "" ? undefined : value);
    const isText = input.value !== "" && typeof value === "string";
    part.setError(isText && NUMBERS.includes(type) ? word(`new.expected.${type}`) : "");
    mark();
    changed();
  });
  mark();
  // what the server says about the value
  draft.addEventListener("problems", ({ detail }) => {
    const problem = detail.find((one) => one.field === name);
    if (problem && !part.querySelector(".error").textContent) part.setError(problem.message);
    if (!problem && draft.settings[name] !== undefined) part.setError("");
  }, { signal });
  return part;
}

function helpOf(name, help) {
  const key = `help.${name}`, text = word(key);
  return text === key ? help : text; // those that matter first have one in Korean
}

function rangeOf({ at_least, at_most }) {
  if (at_least !== null && at_most !== null) {
    return word("new.range", { low: at_least, high: at_most });
  }
  return at_least === null ? "" : word("new.range.least", { low: at_least });
}

function shown(value) {
  if (value === null) return word("new.resolved");
  if (value === true || value === "true") return word("new.on");
  return value === false || value === "false" ? word("new.off") : String(value);
}

// Shows an error of the server at the field of its setting, as soon as the form is there.
function focusField(place, name, signal) {
  const [first, option = null] = name.split(/^launcher\./);
  const launcher = `[data-setting^="launcher."][data-setting$=".${CSS.escape(option || "")}"]`;
  const selector = option ? launcher : `[data-setting="${CSS.escape(first)}"]`;
  const find = () => place.querySelector(selector);
  const show = () => {
    const input = find();
    if (!input) return false;
    const group = input.closest("details");
    if (group) group.open = true;
    input.focus();
    return true;
  };
  if (show()) return;
  const observer = new MutationObserver(() => show() && observer.disconnect());
  observer.observe(place, { childList: true, subtree: true });
  signal.addEventListener("abort", () => observer.disconnect());
}

export const settingsStep = {
  name: "settings",
  isOpen: ({ task, data, model }) => Boolean(task && data && model),
  summary: ({ settings }) => {
    const count = Object.keys(settings).length;
    return count ? word("new.changed", { n: count }) : null;
  },
  draw,
  focusField,
};
