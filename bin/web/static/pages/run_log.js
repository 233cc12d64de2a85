// The log of a job: follows its end, and finds lines.
import { make } from "/components/charts.js";
import { get } from "../api.js";
import { errorBox, setText } from "../parts.js";
import { number, word } from "../words.js";

const MOST_LINES = 5000, WAIT_MS = 2000, NEAR_END = 40;

// A line of a progress bar is written over and over: its last state counts.
const lastState = (line) => line.slice(line.lastIndexOf("\r", line.length - 2) + 1);

// Returns the part with the log of a job; it ends when `signal` aborts.
export function logPart(job, signal) {
  const named = { role: "group", "aria-label": word("log") };
  const block = make("pre", { class: "plain log", tabindex: 0, ...named });
  const status = make("span", { class: "hint", role: "status" }), problem = make("div");
  const search = make("input", { type: "search", placeholder: word("log.search"), input: draw });
  search.setAttribute("aria-label", word("log.search"));
  const follow = make("input", { type: "checkbox", checked: true, change: toEnd });
  const part = make("section", { id: "log" }, make("h2", {}, word("log")),
    make("div", { class: "line wrap" }, search,
      make("label", {}, follow, ` ${word("log.follow")}`), status),
    problem, block);
  let lines = [], rest = "", offset = -1;

  function toEnd() {
    if (follow.checked) block.scrollTop = block.scrollHeight;
  }

  function draw() {
    const wanted = search.value.toLowerCase();
    const fits = wanted ? lines.filter((line) => line.toLowerCase().includes(wanted)) : lines;
    setText(block, fits.join("\n"));
    const count = { n: number(fits.length), all: number(lines.length) };
    setText(status, word(wanted ? "log.found" : "log.lines", count));
    toEnd();
  }

  async function load() {
    try {
      const { text, next, ended } = await get(`/jobs/${job}/log?offset=${offset}`, { signal });
      problem.replaceChildren();
      if (text) {
        const now = (rest + text).split("\n");
        rest = now.pop();
        lines = lines.concat(now.map(lastState)).slice(-MOST_LINES);
        draw();
      }
      offset = next;
      if (ended && !text) return;
      setTimeout(load, text ? 0 : WAIT_MS);
    } catch (error) {
      if (signal.aborted) return;
      problem.replaceChildren(errorBox(error));
      if (error.status !== 404) setTimeout(load, WAIT_MS);
    }
  }

  // reading further up stops following, the end starts it again
  block.addEventListener("scroll", () => {
    const below = block.scrollHeight - block.scrollTop - block.clientHeight;
    follow.checked = below < NEAR_END;
  });
  part.again = () => {
    if (offset !== -1) load();
  };
  load();
  return part;
}

// Returns the part of a run whose log is not here.
export function noLogPart() {
  return make("section", { id: "log" }, make("h2", {}, word("log")),
    make("p", { class: "hint" }, word("log.none")));
}
