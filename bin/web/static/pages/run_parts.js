// The parts of a report below the charts, each of which is drawn again only when its data changes.
import { confusions } from "/components/confusion.js";
import { fixedSamples, worstSamples } from "/components/images.js";
import { classTables, environments, repeats } from "/components/tables.js";
import { settings, timeBreakdowns } from "/components/tables.js";

const PARTS = {
  classes: [classTables, (run) => run.last_evaluation?.classes],
  confusion: [confusions, (run) => run.last_evaluation?.confusion],
  samples: [null, (run) => run.fixed],
  worst: [worstSamples, (run) => run.worst],
  time_breakdown: [timeBreakdowns, (run) => run.time_breakdowns],
  settings: [settings, (run) => run.settings],
  environment: [environments, (run) => run.environment],
  repeat: [repeats, (run) => run.repeat],
};

// Replaces a part; what a user has opened and scrolled in it stays.
function replacePart(old, now) {
  const both = (selector) => [old, now].map((part) => [...part.querySelectorAll(selector)]);
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  const [wasOpen, isOpen] = both("details");
  isOpen.forEach((one, i) => (one.open = wasOpen[i]?.open ?? one.open));
  const [before, after] = both(".scroll");
  const places = before.map((one) => [one.scrollLeft, one.scrollTop]);
  old.replaceWith(now);
  places.forEach((place, i) => after[i]?.scrollTo(...place));
  if (focused) document.getElementById(focused)?.focus();
}

// Returns the element of the parts; show(runs) draws those that have changed.
export function reportParts(names = Object.keys(PARTS)) {
  const place = document.createElement("div"), drawn = new Map();
  let at = Infinity; // the step of the slider; the last one stays the last one
  const samples = (runs) => fixedSamples(runs, { at, onMove: (step) => (at = step) });

  place.show = (runs) => {
    let before = null;
    for (const name of names) {
      const [draw, source] = PARTS[name];
      const text = JSON.stringify(runs.map((run) => [run.name, source(run) ?? null]));
      const old = drawn.get(name);
      if (old?.text !== text) {
        const part = (draw || samples)(runs), shown = old?.part;
        if (part && shown) replacePart(shown, part);
        else if (part && before) before.after(part);
        else if (part) place.prepend(part);
        else shown?.remove();
        drawn.set(name, { text, part });
      }
      before = drawn.get(name).part || before;
    }
  };
  return place;
}
