// Comparison of two to ten runs: curves, settings that differ, classes, paired difference.
import { make } from "/components/charts.js";
import { card, placed } from "/components/sections.js";
import { get, query, stream, throttled } from "../api.js";
import { emptyState, errorBox, pageHead, skeleton } from "../parts.js";
import { word } from "../words.js";
import { differencePart } from "./compare_difference.js";
import { chartBoard } from "./run_charts.js";
import { reportParts } from "./run_parts.js";

export const title = "compare.title";

const REFRESH_MS = 4000;
const PARTS = ["classes", "confusion", "samples", "worst", "time_breakdown", "environment"];
const MOST_CARDS = 4; // with more runs, a card shows its score alone
const LIVE = ["running", "starting"];

export async function show(main, { query: address, signal }) {
  const ids = (address.get("runs") || "").split(",").filter(Boolean);
  const home = make("a", { class: "button primary", href: "/" }, word("compare.choose"));
  if (ids.length < 2) {
    main.append(pageHead(word("compare.title")),
      emptyState(word("compare.empty"), word("compare.few"), home));
    return;
  }
  const heading = word("compare.heading", { n: ids.length });
  const problem = make("div"), waiting = skeleton(8);
  const cards = make("div", { class: ids.length > MOST_CARDS ? "cards compact" : "cards" });
  const board = chartBoard({
    detail: (first, last) => Promise.all(ids.map(async (id) => {
      const range = query({ first, last: Number.isFinite(last) ? last : null, points: 2000 });
      return (await get(`/runs/${id}/curves${range}`, { signal })).curves;
    })),
  });
  const first = reportParts(["settings"]), rest = reportParts(PARTS);
  const difference = make("div");
  main.append(pageHead(heading, make("a", { class: "button", href: "/" }, word("compare.other"))));
  main.append(problem, waiting, cards, difference, board, first, rest);

  async function load() {
    const report = await get(`/comparisons${query({ runs: ids.join(",") })}`, { signal });
    const runs = placed(report.runs);
    cards.replaceChildren(...runs.map((run, i) => {
      const part = card(report, run), name = part.querySelector(".run");
      const link = make("a", { href: `/runs/${ids[i]}`, class: "run-link" }, name.cloneNode(true));
      name.replaceWith(link);
      return part;
    }));
    board.show(report, runs);
    first.show(runs);
    rest.show(runs);
    waiting.remove();
    problem.replaceChildren();
    return { report, runs };
  }

  const { report, runs } = await load();
  difference.replaceWith(differencePart(report, runs, ids, signal));
  const failed = (error) => {
    if (!signal.aborted) problem.replaceChildren(errorBox(error, { retry: refresh }));
  };
  const refresh = throttled(() => load().catch(failed), REFRESH_MS, signal);
  if (runs.some(({ state }) => LIVE.includes(state))) {
    stream("/events", { changed: refresh }, signal, { poll: async () => void refresh() });
  }
}
