// Icons as line drawings in a square of 24 units, in the color of the text.
import { shape } from "/components/charts.js";

const PATHS = {
  brand: "M3 17l6-8 4 5 8-10",
  home: "M4 11l8-7 8 7M6 10v10h12V10",
  new: "M12 5v14M5 12h14",
  try: "M4 5h16v14H4zM4 15l5-4 4 3 3-2 4 3",
  models: "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9",
  data: "M4 6c0-4 16-4 16 0v12c0 4-16 4-16 0zM4 6c0 4 16 4 16 0M4 12c0 4 16 4 16 0",
  classification: "M4 4h8l8 8-8 8-8-8zM8 8h.1",
  detection: "M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M9 9h6v6H9z",
  segmentation: "M4 4h16v16H4zM4 14c5-6 7 3 16-5M10 20c0-4 5-3 6-9",
  instance_segmentation: "M9 3.5a5.5 5.5 0 100 11 5.5 5.5 0 000-11M14.4 9.6a5.5 5.5 0 11-5 8.3",
  panoptic_segmentation: "M4 4h16v16H4zM4 13h4.6M15.4 13H20M12 9.6a3.6 3.6 0 100 7.2 3.6 3.6 0 000-7.2",
  super_resolution: "M4 4h6v6H4zM14 14h6v6h-6zM10 10l4 4M14 4h6v6M4 14v6h6",
  up: "M12 19V5M6 11l6-6 6 6",
  down: "M12 5v14M6 13l6 6 6-6",
  stop: "M6 6h12v12H6z",
  play: "M7 5l12 7-12 7z",
  pause: "M8 5v14M16 5v14",
  kill: "M6 6l12 12M18 6L6 18",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  note: "M5 19l1-4L16 5l3 3L9 18zM5 19l4-1",
  compare: "M4 20V10M10 20V4M16 20v-8M22 20H2",
  search: "M10 4a6 6 0 100 12 6 6 0 000-12M15 15l5 5",
  upload: "M12 16V5M7 10l5-5 5 5M5 20h14",
  camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 10a3.5 3.5 0 100 7 3.5 3.5 0 000-7",
  again: "M20 12a8 8 0 11-2.5-5.8M20 3v4h-4",
};

// Returns an icon that is hidden from screen readers: a text stands beside it.
export function icon(name) {
  const attributes = { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" };
  return shape("svg", attributes, shape("path", { d: PATHS[name] || PATHS.models }));
}
