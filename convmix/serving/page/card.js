// What is known of the model, in a dialog: facts of the running server, then the model card as it was written.

import { element } from "./element.js";
import { elements } from "./markdown.js";
import { percent } from "./rows.js";

export function fillCard(model) {
  const limits = model.limits ?? {};
  const facts = {
    Model: model.name,
    Task: model.task,
    Architecture: model.architecture,
    "Input size": model.input ? `${model.input.height} x ${model.input.width} pixels, ${model.input.channels} channels` : null,
    Labels: model.labels ? `${model.labels.length}` : null,
    Threshold: typeof model.threshold === "number" ? percent(model.threshold) : "none",
    Probabilities: model.calibration ? "calibrated" : "not calibrated",
    Engine: model.engine,
    "An image may have": limits.image_bytes && limits.pixels ? `${(limits.image_bytes / 2 ** 20).toFixed(0)} MiB and ${(limits.pixels / 1e6).toFixed(0)} million pixels` : null,
    Versions: model.versions ? Object.entries(model.versions).map(([name, version]) => `${name} ${version}`).join(", ") : null,
  };
  const told = Object.entries(facts).filter(([, value]) => value);
  const list = element("dl", { className: "facts" }, ...told.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))));
  document.getElementById("card-text").replaceChildren(list, ...elements(model.card ?? ""));
}
