// The labels of the model with their colours, the same in every picture. Names stand beside them: colour is never the only sign.

const UNKNOWN = [150, 150, 150]; // a label that the model did not name

export class Labels {
  /** names: as GET v1/model gives them, in the order of the numbers in class maps. palette: red, green, blue for each. */
  constructor(names = [], palette = []) {
    this.names = names;
    this.palette = palette;
    this.numbers = new Map(names.map((name, i) => [name, i]));
  }

  colour(name) {
    return this.colourOf(this.numbers.get(name));
  }

  colourOf(number) {
    return this.palette[number] ?? UNKNOWN;
  }
}

export const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

/** As one number of a Uint32Array over RGBA bytes. */
export function packed([r, g, b]) {
  return new Uint32Array(new Uint8Array([r, g, b, 255]).buffer)[0];
}

/** Black or white, whichever reads better on the colour (WCAG's relative luminance). */
export function ink(rgb) {
  const [r, g, b] = rgb.map((v) => (v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}
