// Masks as COCO stores them: compressed run lengths, down the columns.

/** The lengths of the runs, of zeros first; as rleFrString of COCO's API reads them. */
export function runs(counts) {
  const lengths = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0;
    let shift = 0;
    let digit;
    do {
      digit = counts.charCodeAt(at++) - 48; // 5 bits of a number, the lowest first; 32: more digits follow
      value |= (digit & 31) << shift;
      shift += 5;
    } while (digit & 32 && at < counts.length);
    if (digit & 16 && shift < 32) value |= -1 << shift; // the highest bit of the last digit is the sign
    if (lengths.length > 2) value += lengths[lengths.length - 2]; // from the fourth on: what it is longer than the one before the last
    lengths.push(value);
  }
  return lengths;
}

/**
 * Put a colour (a number as in a Uint32Array over RGBA) where the mask is, into pixels of every step-th column and row.
 * pixels: ceil(height / step) x ceil(width / step), row by row.
 */
export function paint(pixels, { size: [height, width], counts }, { step, colour }) {
  const across = Math.ceil(width / step);
  const end = height * width;
  let start = 0;
  runs(counts).forEach((length, i) => {
    const stop = Math.min(start + length, end);
    if (i % 2 === 1) {
      for (let x = Math.ceil(Math.floor(start / height) / step) * step; x * height < stop; x += step) {
        const top = Math.max(start - x * height, 0);
        const bottom = Math.min(stop - x * height, height);
        for (let y = Math.ceil(top / step) * step; y < bottom; y += step) pixels[(y / step) * across + x / step] = colour;
      }
    }
    start = stop;
  });
}
