// A map of numbers, one for each pixel, and its drawing in the color of each number.
import { make } from "/components/charts.js";

const LONGEST = 2048; // pixels of a drawn map: phones have limits for a canvas

// Returns the size that the map of an image is drawn in.
export function mapSize(width, height, longest = LONGEST) {
  const scale = Math.min(1, longest / Math.max(width, height));
  const sideOf = (side) => Math.max(1, Math.round(side * scale));
  return { width: sideOf(width), height: sideOf(height) };
}

// Returns {width, height, numbers} of an image of numbers. numberOf(red, green): of a pixel.
export async function readMap(address, numberOf, longest = LONGEST) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const { width, height } = mapSize(image.naturalWidth, image.naturalHeight, longest);
  const context = make("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false; // a mean of two numbers is a third one
  context.drawImage(image, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const numbers = new Uint16Array(width * height);
  for (let i = 0; i < numbers.length; i++) numbers[i] = numberOf(data[4 * i], data[4 * i + 1]);
  return { width, height, numbers };
}

// Returns a color as a pixel of four bytes. alpha: 0 to 255.
export const pixelOf = ([red, green, blue], alpha = 255) => {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
};

// Returns a canvas of this size; paint(numbers, pixels) draws pixels[number] at each place.
export function mapCanvas({ width, height }) {
  const canvas = make("canvas", { width, height }), context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const drawn = new Uint32Array(image.data.buffer);
  canvas.paint = (numbers, pixels) => {
    for (let i = 0; i < drawn.length; i++) drawn[i] = pixels[numbers[i]];
    context.putImageData(image, 0, 0);
  };
  return canvas;
}

// Returns a slider that fades a canvas, in percent.
export function opacitySlider(canvas, label, first) {
  const value = make("output"), slider = make("input", {
    type: "range", min: 0, max: 100, value: first, input: fade,
  });
  function fade() {
    value.textContent = `${slider.value} %`;
    canvas.style.setProperty("opacity", slider.value / 100);
  }
  fade();
  return make("label", {}, label, slider, value);
}
