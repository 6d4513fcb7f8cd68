// The page: images come in, are sent a few at a time, and what the server says stands beside the one that is chosen.

import { fetchModel, predict, useKey } from "./api.js";
import { showAnswer, showError, showWaiting } from "./answer.js";
import * as camera from "./camera.js";
import { fillCard } from "./card.js";
import { Labels } from "./colours.js";
import * as drawing from "./drawing.js";
import * as drop from "./drop.js";
import * as explanation from "./explanation.js";
import { Item } from "./item.js";
import { Queue } from "./queue.js";
import { hasLabels, hasMap, hasMasks, hasObjects, hasSeveral, isSure, isUnlike, kept, saidOf, sizeOf, summary } from "./rows.js";
import { Strip } from "./strip.js";

const AT_ONCE = 4; // requests in flight, one image each: a bad image costs no other its answer, and the server makes batches itself
const TOP = 5; // labels per image
const NEAREST = 3; // training images that are named beside an answer, where the model knows them
const SMALL_PX = 160; // images with a shorter side are enlarged without smoothing
const STARTS_AT = 0.5; // the threshold of objects where the model has none

const $ = (id) => document.getElementById(id);

let model = null; // what GET v1/model said
let labels = new Labels();
let threshold = null; // where the reader moved the slider to; null: as the server says
let chosen = null; // the item in view
let address = null; // the object URL of its file
let asked = 0; // images of the round that is being answered

const queue = new Queue({ atOnce: AT_ONCE, changed: showProgress });
const strip = new Strip({ choose, remove });

// ---- images in ----

function take(files) {
  $("trouble").hidden = true;
  const items = files.map((file) => new Item(file));
  for (const item of items) {
    const canvas = strip.add(item);
    item.ready = item.read(canvas);
    send(item);
  }
  $("workplace").hidden = $("images").hidden = false;
  $("drop").classList.add("compact");
  choose(items[0]);
}

function refuse(names) {
  trouble(`Not an image: ${names.slice(0, 5).join(", ")}${names.length > 5 ? ` and ${names.length - 5} more` : ""}`);
}

function send(item) {
  asked++;
  Object.assign(item, { state: "waiting", trouble: "", canShrink: false });
  strip.tell(item, "waiting");
  queue.add(item, (signal) => answer(item, signal));
  showProgress();
}

async function answer(item, signal) {
  try {
    await item.ready;
    if (signal.aborted) return settle(item, "stopped", "Stopped before it was sent.");
    await modelKnown;
    const excess = item.excess(model?.limits ?? {});
    if (excess) {
      item.canShrink = item.size !== null;
      return settle(item, "failed", excess);
    }
    item.state = "sent";
    const wanted = threshold;
    const waiting = (seconds) => strip.tell(item, `server busy, again in ${Math.ceil(seconds)} s`);
    strip.tell(item, "asking");
    if (item === chosen) show();
    const top = Math.min(TOP, model?.labels?.length || TOP);
    item.row = await predict(item.file, { name: item.name, top, threshold: wanted, nearest: model?.training_images?.named ? NEAREST : 0, signal, waiting });
    item.asked = wanted;
    settle(item, "answered", item.row.error ?? "");
  } catch (error) {
    if (error.name === "AbortError") return settle(item, "stopped", "Stopped.");
    if (error.status === 401) askForKey(error.message);
    settle(item, "failed", error.message);
  }
  return undefined;
}

function settle(item, state, why) {
  Object.assign(item, { state: why && state === "answered" ? "failed" : state, trouble: why });
  tell(item);
  if (item === chosen) show();
}

function tell(item) {
  if (item.state === "answered") strip.tell(item, summary(item.row, threshold), { isUnsure: hasLabels(item.row) && (isUnlike(item.row) || !isSure(item.row, threshold)) });
  else strip.tell(item, { failed: "no answer", stopped: "stopped" }[item.state] ?? item.state);
}

function remove(item) {
  queue.drop(item);
  const next = strip.delete(item);
  if (next) {
    if (item === chosen) choose(next);
    showProgress();
    return;
  }
  chosen = null;
  release();
  asked = 0;
  $("workplace").hidden = $("images").hidden = true;
  $("drop").classList.remove("compact");
  $("choose").focus();
}

// ---- the chosen image ----

function choose(item) {
  chosen = item;
  strip.select(item);
  release();
  address = URL.createObjectURL(item.file);
  $("no-preview").hidden = true;
  $("image").hidden = false;
  $("image").alt = item.name;
  $("image").src = address;
  $("picture-name").textContent = item.name;
  show();
  item.ready.then(() => item === chosen && show());
}

function release() {
  if (address) URL.revokeObjectURL(address);
  address = null;
}

/** Everything about the chosen image, from what is known of it. */
function show() {
  const item = chosen;
  const { row, state } = item;
  const size = sizeOf(row) ?? item.size ?? [3, 4];
  const picture = $("picture");
  picture.style.setProperty("--w", size[1]);
  picture.style.setProperty("--h", size[0]);
  picture.classList.toggle("small", Math.min(...size) < SMALL_PX);
  const isAnswered = state === "answered";
  if (isAnswered) {
    showAnswer($("answer"), row, { threshold, labels, isCalibrated: Boolean(model?.calibration), point: drawing.point });
  } else if (item.trouble) showError($("answer"), item.trouble);
  else showWaiting($("answer"), state === "sent" ? "Asking the server" : "Waiting");
  showControls(item, isAnswered);
  const said = isAnswered && hasSeveral(row) ? saidOf(row, threshold).map(({ label }) => label) : [];
  explanation.turnTo(item, { isPossible: isAnswered && (hasLabels(row) || hasSeveral(row)), labels: said });
  redraw(item, size, isAnswered);
}

function redraw(item, size, isAnswered) {
  drawing.wipe();
  if (!isAnswered) return;
  drawing.draw(item.row, size, { threshold, labels, isWanted: () => item === chosen }).catch((error) => trouble(`The map cannot be drawn: ${error.message}.`));
}

function showControls(item, isAnswered) {
  const row = isAnswered ? item.row : null;
  $("threshold-row").hidden = !(hasLabels(row) || hasSeveral(row) || hasObjects(row));
  $("threshold-label").textContent = hasLabels(row) ? "Sure from a probability of" : hasSeveral(row) ? "Labels from a probability of" : "Objects from a score of";
  const at = threshold ?? model?.threshold ?? (hasLabels(row) ? 0 : STARTS_AT);
  $("threshold").value = at;
  $("threshold").setAttribute("aria-valuetext", `${Math.round(100 * at)} %`);
  $("threshold-value").textContent = `${Math.round(100 * at)} %`;
  $("opacity-row").hidden = !(hasMap(row) || hasMasks(row));
  $("again").hidden = !["failed", "stopped"].includes(item.state) || item.canShrink;
  $("shrink").hidden = !item.canShrink;
}

// ---- sliders ----

$("threshold").addEventListener("input", () => {
  threshold = Number($("threshold").value);
  for (const item of strip.items) if (item.state === "answered") tell(item);
  show();
});

$("threshold").addEventListener("change", () => {
  // objects below the threshold that was asked for are known to the server alone
  const below = (item) => item.state === "answered" && hasObjects(item.row) && threshold < (item.asked ?? model?.threshold ?? STARTS_AT);
  strip.items.filter(below).forEach(send);
});

$("opacity").addEventListener("input", showOpacity);

function showOpacity() {
  const share = $("opacity").value;
  $("regions").style.setProperty("opacity", share);
  $("opacity-value").textContent = $("opacity").ariaValueText = `${Math.round(100 * share)} %`;
}

// ---- all images ----

function showProgress() {
  const items = strip.items;
  const open = queue.length;
  $("cancel").hidden = open === 0;
  $("images-title").textContent = items.length === 1 ? "1 image" : `${items.length} images`;
  $("progress").textContent = open ? `${asked - open} of ${asked} answered` : "";
  $("download").disabled = !items.some((item) => item.state === "answered");
  if (open || !asked) return;
  const [n, failed] = [asked, items.filter((item) => item.state === "failed").length];
  asked = 0;
  const one = items.length === 1 ? items[0] : null;
  if (one) $("said").textContent = `${one.name}: ${one.state === "answered" ? summary(one.row, threshold) : one.trouble}`;
  else $("said").textContent = `${n} images done${failed ? `, ${failed} without an answer` : ""}`;
}

function stopAll() {
  for (const item of queue.clear()) settle(item, "stopped", "Stopped before it was sent.");
  showProgress();
}

function download() {
  const rows = strip.items.map((item) => (item.state === "answered" ? kept(item.row, threshold) : { name: item.name, error: item.trouble || item.state }));
  const told = { model: { name: model?.name, task: model?.task }, threshold: threshold ?? model?.threshold ?? null, predictions: rows };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(told, null, 2)], { type: "application/json" }));
  link.download = "predictions.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // the browser reads it after the click
}

// ---- the model and its key ----

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = false;
}

function askForKey(why) {
  const wasOpen = !$("key-form").hidden;
  $("key-form").hidden = false;
  $("key-error").textContent = wasOpen && $("key").value ? why : "";
  if (!wasOpen) $("key").focus();
}

async function learnModel() {
  try {
    model = await fetchModel();
  } catch (error) {
    if (error.status === 401) askForKey(error.message);
    else trouble(error.message);
    return;
  }
  $("key-form").hidden = true;
  document.title = `${model.name} - convmix`;
  $("model-name").textContent = model.name;
  $("model-task").textContent = model.task;
  $("model-task").hidden = false;
  labels = new Labels(model.labels, model.palette);
  const more = model.labels.length > 12 ? ` and ${model.labels.length - 12} more` : "";
  $("knows").textContent = `This model knows ${model.labels.slice(0, 12).join(", ")}${more}.`;
  $("knows").hidden = false;
  explanation.offer(model.explanations);
  fillCard(model);
  $("open-card").disabled = false;
}

$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  useKey($("key").value);
  modelKnown = learnModel();
  await modelKnown;
  if (model) strip.items.filter((item) => item.state === "failed").forEach(send);
});

$("open-card").addEventListener("click", () => $("card").showModal());
for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
for (const sheet of document.querySelectorAll("dialog")) {
  sheet.addEventListener("click", (event) => event.target === sheet && sheet.close()); // beside it
}

$("remove").addEventListener("click", () => {
  remove(chosen);
  strip.focus();
});
$("again").addEventListener("click", () => {
  send(chosen);
  show();
});
$("shrink").addEventListener("click", async () => {
  const item = chosen;
  Object.assign(item, { state: "waiting", trouble: "", canShrink: false });
  strip.tell(item, "making a copy");
  show();
  try {
    await item.shrink(model?.limits ?? {});
    send(item);
    if (item === chosen) choose(item);
  } catch (error) {
    settle(item, "failed", error.message);
  }
});
$("cancel").addEventListener("click", stopAll);
$("clear").addEventListener("click", () => {
  stopAll();
  strip.items.forEach(remove);
});
$("download").addEventListener("click", download);
$("image").addEventListener("error", () => {
  if (!address) return;
  $("image").hidden = true;
  $("no-preview").hidden = false;
});

showOpacity();
let modelKnown = learnModel();
drop.listen({ take, refuse });
camera.listen({ take });
explanation.listen({ refused: (error) => error.status === 401 && askForKey(error.message) });
