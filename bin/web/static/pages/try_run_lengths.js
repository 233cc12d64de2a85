// Masks as COCO's compressed run lengths, down the columns of an image.

const LETTER = 48, BITS = 5, MORE = 0x20, SIGN = 0x10, VALUE = 0x1f;

// Returns the lengths of the runs, of pixels outside and inside in turn. A letter has five bits of a
// number; from the third number on, each is the difference to the one before the last.
function lengthsOf(text) {
  const lengths = [];
  for (let place = 0; place < text.length;) {
    let value = 0, shift = 0, letter = MORE;
    while (letter & MORE) {
      letter = text.charCodeAt(place++) - LETTER;
      value |= (letter & VALUE) << shift;
      shift += BITS;
    }
    if (letter & SIGN) value |= -1 << shift;
    if (lengths.length > 2) value += lengths.at(-2);
    lengths.push(value);
  }
  return lengths;
}

// Returns the runs inside of a mask, [start, end, start, end, ...] down the columns of a map of this
// size: a pixel of it is that of the mask at its center.
export function runsOf({ size: [maskHeight, maskWidth], counts }, { width, height }) {
  const placeOf = (edge, side, mapSide) => Math.ceil(edge * mapSide / side - 0.5);
  const runs = [];
  let start = 0, isInside = false;
  for (const length of lengthsOf(counts)) {
    const end = start + length;
    if (isInside && length) {
      const first = Math.floor(start / maskHeight), last = Math.floor((end - 1) / maskHeight);
      const stop = placeOf(last + 1, maskWidth, width);
      for (let x = placeOf(first, maskWidth, width); x < stop; x++) {
        const top = maskHeight * Math.floor((x + 0.5) * maskWidth / width);
        const from = placeOf(Math.max(0, start - top), maskHeight, height);
        const to = placeOf(Math.min(maskHeight, end - top), maskHeight, height);
        if (to > from) runs.push(x * height + from, x * height + to);
      }
    }
    [start, isInside] = [end, !isInside];
  }
  return runs;
}
