// The answer beside the image: bars of probabilities, objects found, or the legend of a class map. Every text is set as text.

import { css } from "./colours.js";
import { element } from "./element.js";
import { above, covering, hasLabels, hasMap, hasObjects, hasSeveral, isSure, isUnlike, percent, ranked, saidOf } from "./rows.js";

const SHOWN = 200; // lines of a list; a page with thousands of objects helps nobody
const NEXT = 3; // labels that are not said, but nearly

/**
 * Replace what stands in `place` by the answer.
 * threshold: null: as the server said. labels: a `Labels`. point(i | null): called when the reader points at the i-th object.
 */
export function showAnswer(place, row, { threshold, labels, isCalibrated, point }) {
  if (hasLabels(row)) place.replaceChildren(...classes(row, threshold, isCalibrated));
  else if (hasSeveral(row)) place.replaceChildren(...several(row, threshold, isCalibrated));
  else if (hasObjects(row)) place.replaceChildren(...objects(row, threshold, labels, point));
  else if (hasMap(row)) place.replaceChildren(...legend(row, labels));
  else place.replaceChildren(element("p", { className: "error" }, "The server's answer holds nothing that this page can show."));
}

export function showError(place, message) {
  place.replaceChildren(element("h3", { className: "verdict" }, "No answer"), element("p", { className: "error" }, message));
}

export function showWaiting(place, text) {
  place.replaceChildren(element("p", { className: "waiting" }, text));
}

function classes(row, threshold, isCalibrated) {
  const sure = isSure(row, threshold) && !isUnlike(row);
  const verdict = isUnlike(row)
    ? element("h3", { className: "verdict unsure" }, "Unlike the training images")
    : sure
    ? element("h3", { className: "verdict" }, row.label)
    : element("h3", { className: "verdict unsure" }, "Not sure");
  const pairs = [{ label: row.label, probability: row.probability }, ...(row.alternatives ?? [])];
  const said = [verdict];
  if (isUnlike(row)) said.push(element("p", { className: "hint" }, `None of the labels may be right; the best guess is ${row.label}.`));
  else if (!sure) said.push(element("p", { className: "hint" }, `The best guess is ${row.label}, with a probability below the threshold.`));
  said.push(list(pairs.map(({ label, probability }) => bar(label, probability)), sure ? "bars" : "bars unsure"));
  said.push(origin(isCalibrated));
  if (row.nearest?.length) said.push(...nearest(row.nearest));
  return said;
}

/** The training images that the model finds most alike. */
function nearest(images) {
  const line = ({ name, label, cosine }) => element("li", {}, element("span", { className: "name" }, `${name} (${label})`), element("span", { className: "value" }, cosine.toFixed(2)));
  const lines = element("ul", { className: "nearest", role: "list", "aria-label": "Most similar training images" }, ...images.map(line));
  return [element("h4", {}, "Most similar training images"), lines];
}

function several(row, threshold, isCalibrated) {
  const labels = saidOf(row, threshold);
  const said = [element("h3", { className: "verdict" }, labels.map(({ label }) => label).join(", ") || "No label")];
  if (labels.length) said.push(list(labels.slice(0, SHOWN).map(({ label, probability }) => bar(label, probability)), "bars"));
  const others = ranked(row).filter(({ label }) => !labels.some((one) => one.label === label)).slice(0, NEXT);
  if (others.length) {
    said.push(element("p", { className: "hint" }, "Below their thresholds:"));
    said.push(list(others.map(({ label, probability }) => bar(label, probability)), "bars unsure"));
  }
  said.push(origin(isCalibrated));
  return said;
}

const origin = (isCalibrated) => element("p", { className: "hint" }, isCalibrated ? "Calibrated probabilities" : "Probabilities as the network gives them, not calibrated");

function objects(row, threshold, labels, point) {
  const found = row.objects.map((o, i) => [o, i]).filter(([o]) => above({ objects: [o] }, threshold).length);
  const said = [element("h3", { className: "verdict" }, found.length ? count(found.length, "object") : "Nothing found")];
  if (!found.length) said.push(element("p", { className: "hint" }, "No object reaches the threshold."));
  const lines = found.slice(0, SHOWN).map(([o, i]) => {
    const line = bar(o.label, o.score, labels.colour(o.label));
    line.addEventListener("pointerenter", () => point(i));
    line.addEventListener("pointerleave", () => point(null));
    return line;
  });
  said.push(list(lines, "bars"));
  if (found.length > SHOWN) said.push(element("p", { className: "hint" }, `and ${found.length - SHOWN} more, in the download`));
  return said;
}

function legend(row, labels) {
  const lines = covering(row).map(([label, share]) => bar(label, share, labels.colour(label)));
  const said = [element("h3", { className: "verdict" }, count(lines.length, "class", "classes"))];
  if (typeof row.certainty === "number") said.push(element("p", { className: "hint" }, `Share of the image; mean certainty ${percent(row.certainty)}`));
  return [...said, list(lines, "bars")];
}

const list = (lines, className) => element("ul", { className, role: "list", tabindex: "0", "aria-label": "Answer" }, ...lines);

const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

/** A name, its share in words, and a bar as long as the share. */
function bar(label, share, rgb = null) {
  const fill = element("span", { className: "fill" });
  fill.style.setProperty("inline-size", `${100 * Math.min(Math.max(share, 0), 1)}%`);
  const name = element("span", { className: "name" });
  if (rgb) {
    const dot = element("span", { className: "dot" });
    dot.style.setProperty("background-color", css(rgb));
    name.append(dot);
  }
  name.append(label);
  return element("li", {}, name, element("span", { className: "value" }, percent(share)), element("span", { className: "track" }, fill));
}
