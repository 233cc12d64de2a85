// The page: drawReport(object) draws all of it, and may be called again with a newer object, which
// schema.json defines.
import { confusions } from "./confusion.js";
import { make, moment, say, section, whole } from "./elements.js";
import { fixedSamples, worstSamples } from "./images.js";
import { card, chartParts, chartSection, controls, figureOf, placed } from "./sections.js";
import { classTables, environments, repeats, settings, timeBreakdowns } from "./tables.js";

const MAX_TITLE_RUNS = 3; // runs named in the title

function missing(report, runs) {
  const { points, fixed_samples: samples, fixed_steps: steps } = report.limits;
  const limits = [
    say(
      "A curve of more than {points} points is reduced to the mean of equal intervals, in a band "
      + "from the minimum to the maximum of each.", { points: whole(points) }),
    say(
      "Of each run the page holds at most {samples} fixed samples at {steps} evaluations, and the "
      + "{worst} worst samples.", { samples, steps, worst: report.limits.worst_samples }),
  ].join(" ");
  const notes = runs.flatMap((run) => run.notes.map((note) => {
    return make("li", {}, runs.length > 1 ? `${run.name}: ${note}` : note);
  }));
  const list = notes.length ? make("ul", {}, notes) : null;
  return section("missing", say("Missing parts"), make("p", {}, limits), list);
}

function drawReport(report) {
  const runs = placed(report.runs), figures = [];
  const create = (described) => {
    const figure = figureOf(described);
    figures.push(figure);
    return figure;
  };
  const several = new Set(runs.map((run) => run.task)).size > 1;
  const parts = chartParts(report, runs);
  const drawn = parts.map((part) => chartSection(part, several, create));
  const others = [
    classTables(runs), confusions(runs), fixedSamples(runs), worstSamples(runs),
    timeBreakdowns(runs), settings(runs), environments(runs), repeats(runs), missing(report, runs),
  ].filter(Boolean);
  const names = runs.map(({ name }) => name).join(", ");
  const title = runs.length > MAX_TITLE_RUNS ? say("{n} runs", { n: runs.length }) : names;
  document.title = `${title} - visionloop`;
  const links = [...drawn, ...others].map((part) => {
    return make("a", { href: `#${part.id}` }, part.querySelector("h2").textContent);
  });
  const redraw = () => figures.forEach((figure) => figure.redraw());
  document.querySelector("main").replaceChildren(
    make("h1", {}, title),
    make("p", { class: "hint" }, `visionloop ${report.visionloop}, ${moment(report.created)}`),
    make("nav", { "aria-label": say("sections") }, links),
    make("div", { class: "cards" }, runs.map((run) => card(report, run))),
    make("div", {}, figures.length ? controls(runs, redraw) : "", drawn),
    ...others,
  );
}

drawReport(JSON.parse(document.getElementById("report").textContent));
