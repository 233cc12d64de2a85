// Shared parts of the pages: errors, progress, commands, buttons, fields.
import { make } from "/components/charts.js";
import { icon } from "./icons.js";
import { hasWord, word } from "./words.js";

export { copyable as copyableCommand } from "/components/elements.js";
export { icon } from "./icons.js";

// Names of the commands, in the order of the pages.
export const TASKS = [
  "classification", "detection", "segmentation", "instance_segmentation", "panoptic_segmentation",
  "super_resolution",
];

// Returns the name of a task's command for any name of the task.
export const taskKey = (task) => String(task).replace(/^(image_|object_|semantic_)/, "");

export function taskName(task) {
  const key = `task.${taskKey(task)}`;
  return hasWord(key) ? word(key) : String(task ?? "-");
}

export function taskIcon(task) {
  const name = taskName(task), attributes = { class: "task-icon", role: "img", title: name };
  return make("span", { ...attributes, "aria-label": name }, icon(taskKey(task)));
}

// Returns a box with an error, the field, and what to do. retry: called by its button.
export function errorBox(error, { retry = null } = {}) {
  const isOffline = error.status === 0;
  const message = isOffline ? word("offline") : error.message || String(error);
  const button = retry && make("button", { click: retry }, icon("again"), word("retry"));
  return make("div", { class: "error-box", role: "alert" },
    make("p", {}, message),
    error.hint ? make("p", { class: "hint" }, error.hint) : null,
    button);
}

// Returns a progress bar; set(value, max, text) changes it. Without a value it runs to and fro.
export function progressBar(label, value = null, max = 1) {
  const bar = make("progress", { "aria-label": label }), text = make("span", { class: "hint" });
  const part = make("div", { class: "progress", "aria-live": "off" }, bar, text);
  part.set = (now, all = 1, words = "") => {
    if (now === null || !all) bar.removeAttribute("value");
    else [bar.max, bar.value] = [all, Math.min(now, all)];
    if (text.textContent !== words) text.textContent = words;
  };
  part.set(value, max);
  return part;
}

// Returns grey lines that stand where content will be.
export function skeleton(lines = 3) {
  const rows = Array.from({ length: lines }, () => make("span"));
  return make("div", { class: "skeleton", role: "status", "aria-label": word("loading") }, rows);
}

// Returns a button that is off while `action` runs and shows its error beside itself.
export function actionButton(label, action, { image = null, kind = "" } = {}) {
  const place = make("span", { class: "action-error" });
  const text = make("span", {}, label);
  const button = make("button", { class: kind, click: async () => {
    const hadFocus = document.activeElement === button;
    button.disabled = true;
    button.setAttribute("aria-busy", "true");
    place.replaceChildren();
    try {
      await action();
    } catch (error) {
      place.replaceChildren(errorBox(error));
    } finally {
      button.disabled = false;
      button.removeAttribute("aria-busy");
      // a button that is off loses the focus
      if (hadFocus && document.activeElement === document.body) button.focus();
    }
  } }, image ? icon(image) : null, text);
  const part = make("span", { class: "action" }, button, place);
  part.label = (now) => (text.textContent = now);
  part.press = () => button.click();
  return part;
}

// Returns a button whose action runs only after the question is answered.
export function confirmButton(label, question, action, options = {}) {
  return actionButton(label, async () => {
    if (await confirmed(question, label)) await action();
  }, options);
}

// Asks a question over the page. Returns a promise of whether the user agreed.
export function confirmed(question, agree) {
  return new Promise((resolve) => {
    const box = make("dialog", { class: "ask", "aria-label": question, close: () => {
      box.remove();
      resolve(box.returnValue === "yes");
    } });
    const button = (value, text, kind) => {
      return make("button", { class: kind, click: () => box.close(value) }, text);
    };
    box.append(make("p", {}, question), make("div", { class: "buttons" },
      button("no", word("cancel"), ""), button("yes", agree, "danger")));
    document.body.append(box);
    box.showModal();
  });
}

// Opens a dialog with a title and a close button. Returns its body; aborts `signal` closes it.
export function openDialog(title, signal, whenClosed = () => {}) {
  const body = make("div", { class: "dialog-body" });
  const box = make("dialog", { class: "sheet", "aria-label": title, close: () => {
    box.remove();
    whenClosed();
  } });
  const close = make("button", { class: "quiet", click: () => box.close() }, word("close"));
  box.append(make("header", {}, make("h2", {}, title), close), body);
  document.body.append(box);
  signal.addEventListener("abort", () => box.close());
  box.showModal();
  return body;
}

// Returns a labelled input with a hint; setError(text) marks it as wrong.
export function field(label, input, { hint = "", id = `field-${++fields}` } = {}) {
  input.id = id;
  const about = make("small", { id: `${id}-hint` }, hint);
  const wrong = make("span", { class: "error", id: `${id}-error`, hidden: true });
  input.setAttribute("aria-describedby", `${id}-hint ${id}-error`);
  const name = make("label", { for: id }, label);
  const part = make("div", { class: "field" }, name, input, about, wrong);
  part.setError = (text) => {
    [wrong.hidden, wrong.textContent] = [!text, text || ""];
    input.setAttribute("aria-invalid", String(Boolean(text)));
  };
  return part;
}
let fields = 0;

// Returns the badge of a state; set(state) changes it.
export function stateBadge(state) {
  const badge = make("span");
  badge.set = (now) => {
    if (badge.dataset.state === now) return;
    badge.dataset.state = now;
    badge.className = `state ${now}`;
    badge.textContent = hasWord(`state.${now}`) ? word(`state.${now}`) : now;
  };
  badge.set(state);
  return badge;
}

// Returns the title of a page with its buttons.
export function pageHead(title, ...actions) {
  const buttons = make("div", { class: "buttons" }, actions);
  return make("header", { class: "page-head" }, make("h1", {}, title), buttons);
}

// Returns a block for a page without content, with what to do.
export function emptyState(title, text, ...actions) {
  const buttons = make("div", { class: "buttons" }, actions);
  return make("div", { class: "empty" }, make("h2", {}, title), make("p", {}, text), buttons);
}

// Makes the children of `parent` those of `items`, keeping each element by its key.
// draw(item) returns a new element, update(element, item) changes one.
export function keepList(parent, items, keyOf, draw, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const key = String(keyOf(item));
    let element = old.get(key);
    if (!element) {
      element = draw(item);
      element.dataset.key = key;
    }
    update(element, item);
    old.delete(key);
    return element;
  });
  for (const child of old.values()) child.remove();
  wanted.forEach((element, i) => {
    if (parent.children[i] !== element) parent.insertBefore(element, parent.children[i] || null);
  });
}

// Sets the text of an element if it changed: a selection of the user stays.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
