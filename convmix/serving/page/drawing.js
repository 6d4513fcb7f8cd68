// What was found, drawn over the image: boxes in an SVG of the image's own pixels, masks and class maps in a canvas.

import { css, ink, packed } from "./colours.js";
import { numbers } from "./png.js";
import { above, hasMap, hasMasks, hasObjects, percent } from "./rows.js";
import { paint } from "./rle.js";

const SVG = "http://www.w3.org/2000/svg";
const LONGEST = 1600; // pixels of a mask's canvas; a screen shows no more
const FEW = 8; // objects whose names may be wider than they are; of more, only names that hide little
const WIDER = 1.6; // so much wider than its box a name may then be

const regions = document.getElementById("regions");
const boxes = document.getElementById("boxes");
const tags = document.getElementById("tags");
new ResizeObserver(thin).observe(tags);

export function wipe() {
  for (const layer of [regions, boxes, tags]) layer.toggleAttribute("hidden", true); // an SVG has no property of that name
  regions.width = regions.height = 0;
  boxes.replaceChildren();
  tags.replaceChildren();
}

/**
 * Draw a row over the image of this size [height, width]; nothing for rows without places.
 * isWanted(): false once another image is shown, for a map takes a moment to unpack.
 */
export async function draw(row, size, { threshold, labels, isWanted }) {
  if (hasMap(row) && row.map) return drawMap(await numbers(row.map), labels, isWanted);
  if (!hasObjects(row)) return undefined;
  const found = row.objects.map((o, i) => ({ ...o, i })).filter((o) => above({ objects: [o] }, threshold).length);
  if (hasMasks(row)) drawMasks(found, size, labels);
  return drawBoxes(found, size, labels);
}

/** Make one object stand out; null: none. */
export function point(i) {
  for (const part of [...boxes.children, ...tags.children]) part.classList.toggle("hot", part.dataset.object === String(i));
}

function drawBoxes(found, [height, width], labels) {
  boxes.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const drawn = found.toReversed().flatMap(({ label, box: [left, top, right, bottom], i }) => { // the surest in front
    const rgb = labels.colour(label);
    const place = { x: left, y: top, width: Math.max(right - left, 0), height: Math.max(bottom - top, 0) };
    return [rectangle({ ...place, class: "edge" }, i), rectangle({ ...place, stroke: css(rgb) }, i)];
  });
  boxes.replaceChildren(...drawn);
  tags.replaceChildren(...found.map(({ label, score, box: [left, top, right], i }) => tag(label, score, [left / width, top / height, right / width], labels.colour(label), i)));
  for (const layer of [boxes, tags]) layer.removeAttribute("hidden");
  thin();
}

/** Leave the names that can be read, the surest first: none over another, and in a crowd none that hides its neighbours. */
function thin() {
  const isCrowd = tags.children.length > FEW;
  const whole = tags.clientWidth;
  const kept = [];
  const measured = [...tags.children].map((made) => [made, made.getBoundingClientRect()]);
  for (const [made, place] of measured) {
    const hides = isCrowd && place.width > WIDER * Number(made.dataset.share) * whole;
    const collides = kept.some((other) => place.left < other.right && other.left < place.right && place.top < other.bottom && other.top < place.bottom);
    made.classList.toggle("out", hides || collides);
    if (!hides && !collides) kept.push(place);
  }
}

function rectangle(attributes, i) {
  const made = document.createElementNS(SVG, "rect");
  for (const [name, value] of Object.entries({ fill: "none", "vector-effect": "non-scaling-stroke", ...attributes })) made.setAttribute(name, value);
  made.dataset.object = i;
  return made;
}

function tag(label, score, [left, top, right], rgb, i) {
  const made = document.createElement("span");
  made.textContent = `${label} ${percent(score)}`;
  Object.assign(made.dataset, { object: i, share: right - left });
  made.className = top < 0.09 ? "tag inside" : "tag";
  if (left > 0.6) {
    made.style.setProperty("right", `${100 * Math.max(1 - right, 0)}%`);
  } else {
    made.style.setProperty("left", `${100 * Math.max(left, 0)}%`);
  }
  made.style.setProperty("top", `${100 * Math.max(top, 0)}%`);
  made.style.setProperty("background-color", css(rgb));
  made.style.setProperty("color", ink(rgb));
  return made;
}

function drawMasks(found, [height, width], labels) {
  const step = Math.ceil(Math.max(height, width) / LONGEST);
  const picture = new ImageData(Math.ceil(width / step), Math.ceil(height / step));
  const pixels = new Uint32Array(picture.data.buffer);
  for (const { segmentation, label } of found.toReversed()) { // of objects that overlap the surest is in front
    if (segmentation) paint(pixels, segmentation, { step, colour: packed(labels.colour(label)) });
  }
  put(picture);
}

function drawMap({ width, height, values }, labels, isWanted) {
  if (!isWanted()) return;
  const picture = new ImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  const colours = new Map();
  for (let i = 0; i < values.length; i++) {
    if (!colours.has(values[i])) colours.set(values[i], packed(labels.colourOf(values[i])));
    pixels[i] = colours.get(values[i]);
  }
  put(picture);
}

function put(picture) {
  Object.assign(regions, { width: picture.width, height: picture.height });
  regions.removeAttribute("hidden");
  regions.getContext("2d").putImageData(picture, 0, 0);
}
