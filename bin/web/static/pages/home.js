// Home: the latest runs.
import { make } from "/components/charts.js";
import { get } from "../api.js";
import { emptyState, pageHead, skeleton, stateBadge, taskIcon } from "../parts.js";
import { word } from "../words.js";

export const title = "home.title";

export async function show(main, { signal }) {
  const start = make("a", { class: "button primary", href: "/new" }, word("home.new"));
  const place = make("div", {}, skeleton());
  main.append(pageHead(word("home.title"), start), place);
  const { runs } = await get("/runs", { signal });
  const rows = runs.map((run) => make("li", {},
    taskIcon(run.task), make("a", { href: `/runs/${run.id}` }, run.name), stateBadge(run.state)));
  const empty = emptyState(word("home.empty"), word("home.empty.text"));
  place.replaceChildren(runs.length ? make("ul", {}, rows) : empty);
}
