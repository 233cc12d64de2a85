// Try a model: an image goes to the server, its prediction is drawn.
import { make } from "/components/charts.js";
import { get, post, query as queryOf } from "../api.js";
import {
  emptyState, errorBox, field, pageHead, progressBar, skeleton, taskName, TASKS,
} from "../parts.js";
import { rename } from "../router.js";
import { word } from "../words.js";
import { imageInput } from "./try_input.js";
import { resultOf } from "./try_results.js";

export const title = "try.title";
const loaded = new Set(); // models that have predicted an image since the page was opened

export async function show(main, { query, signal }) {
  const place = make("div", {}, skeleton(5));
  main.append(pageHead(word("try.title")), place);
  const { models } = await get("/predictions/models", { signal });
  const asked = query.get("model");
  if (!models.length && !asked) {
    const link = make("a", { class: "button primary", href: "/new" }, word("try.train"));
    place.replaceChildren(emptyState(word("try.empty"), word("try.empty.text"), link));
    return;
  }
  const trial = new Trial(models, asked, signal);
  place.replaceChildren(trial.element);
}

// A model, an image and the result of both.
class Trial {
  constructor(models, asked, signal) {
    Object.assign(this, { image: null, signal, current: null, options: {} });
    signal.addEventListener("abort", () => this.end());
    this.select = modelSelect(models, asked);
    this.select.addEventListener("change", () => this.changeModel());
    const input = imageInput((image) => this.take(image), signal);
    this.result = make("section", { class: "try-result", "aria-live": "polite" },
      make("p", { class: "hint" }, word("try.start")));
    const model = field(word("try.model"), this.select);
    const left = make("section", { class: "try-input" }, model, input);
    this.element = make("div", { class: "try" }, left, this.result);
  }

  // Ends the request that waits, and frees the image.
  end() {
    this.current?.abort();
    if (this.image) URL.revokeObjectURL(this.image.url);
    this.image = null;
  }

  changeModel() {
    this.options = {};
    rename(`/try${queryOf({ model: this.select.value })}`);
    if (this.image) this.predict();
  }

  take(blob) {
    this.end();
    this.image = { blob, url: URL.createObjectURL(blob), name: blob.name || "" };
    this.predict();
  }

  // Sends the image and draws the answer. options: {top_k, attention} of a classifier.
  async predict(options = this.options) {
    this.current?.abort();
    const own = new AbortController(), model = this.select.value;
    this.current = own;
    this.options = options;
    const stop = this.showProgress(model, own.signal);
    try {
      const address = `/predictions${queryOf({ model, ...options })}`;
      const answer = await post(address, this.image.blob, { signal: own.signal });
      loaded.add(model);
      const again = (changed) => this.predict({ ...this.options, ...changed });
      const drawn = await resultOf(answer, this.image, { options, again, signal: own.signal });
      if (!own.signal.aborted) this.show(drawn);
    } catch (error) {
      if (own.signal.aborted) return;
      // the same image and model give the same refusal
      const mayPass = !(error.status >= 400 && error.status < 500) || error.status === 429;
      this.show(errorBox(error, { retry: mayPass ? () => this.predict() : null }));
    } finally {
      stop();
    }
  }

  show(content) {
    this.result.removeAttribute("aria-busy");
    this.result.replaceChildren(content);
  }

  // Shows the seconds that a prediction takes. An older result stays below, pale.
  showProgress(model, signal) {
    const text = word(loaded.has(model) ? "try.predicting" : "try.loading");
    const bar = progressBar(text), started = performance.now();
    const label = make("p", { role: "status" }, text);
    const box = make("div", { class: "try-progress" }, label, bar);
    const draw = () => {
      const seconds = Math.floor((performance.now() - started) / 1000);
      bar.set(null, 1, word("try.seconds", { n: seconds }));
    };
    draw();
    const timer = setInterval(draw, 1000);
    this.result.setAttribute("aria-busy", "true");
    if (this.result.querySelector(".try-answer")) this.result.prepend(box);
    else this.result.replaceChildren(box, skeleton(4));
    const stop = () => {
      clearInterval(timer);
      box.remove();
    };
    signal.addEventListener("abort", stop);
    return stop;
  }
}

// Returns the list of models by task; one that was asked for by its address is always in it.
function modelSelect(models, asked) {
  const groups = TASKS.map((task) => {
    const options = models.filter((one) => one.task === task).map((one) => {
      return make("option", { value: one.path, selected: one.path === asked }, one.name);
    });
    return options.length ? make("optgroup", { label: taskName(task) }, options) : null;
  });
  const isKnown = !asked || models.some((one) => one.path === asked);
  const other = isKnown ? null : make("option", { value: asked, selected: true }, asked);
  return make("select", {}, other, groups);
}
