// The frame that images and drawings over them share.
import { make } from "/components/charts.js";

const BIGGEST = 3; // times: small images are not drawn larger

// Returns a frame for an image of this size, as wide as the page and its height allow.
export function stage(width, height, ...children) {
  const limits = { "--width": `${BIGGEST * width}px`, "--aspect": width / height };
  return make("div", { class: "stage", style: limits }, children);
}

export const picture = (src, alt) => make("img", { src, alt, draggable: "false" });

export const percent = (share) => `${(100 * share).toFixed(1)} %`;
