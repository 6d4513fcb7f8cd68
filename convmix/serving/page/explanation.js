// Where in the chosen image the evidence for its label lies, when the reader asks.

import { explain } from "./api.js";
import { element } from "./element.js";

const why = document.getElementById("why");
const methods = document.getElementById("method");
const subjects = document.getElementById("subject");
const heat = document.getElementById("heat");
const text = document.getElementById("why-text");
const FIRST = "gradcam"; // where the model allows it: as quick as a prediction

let item = null; // the image in view
let isWanted = false;

/** refused(error): called with what the server says against it. */
export function listen({ refused }) {
  why.addEventListener("click", () => {
    isWanted = !isWanted;
    if (isWanted) ask(refused);
    else paint();
  });
  for (const choice of [methods, subjects]) {
    choice.addEventListener("change", () => {
      if (isWanted) ask(refused);
    });
  }
}

/** names: the methods that the server knows for its model; none: it cannot be explained. */
export function offer(names = []) {
  methods.replaceChildren(...names.map((name) => element("option", { value: name }, name.replaceAll("_", " "))));
  methods.value = names.includes(FIRST) ? FIRST : names[0] ?? "";
}

/** Of the label that the reader chose, where several are said. */
const asking = () => JSON.stringify([methods.value, subjects.value]);

/** labels: those that are said of an image that may have several. Another image is in view, or there is an answer now; the explanation of one image says nothing about the next. */
export function turnTo(other, { isPossible, labels = [] }) {
  if (other !== item) isWanted = false;
  const before = subjects.value;
  subjects.replaceChildren(...labels.map((label) => element("option", { value: label }, label)));
  if (labels.includes(before)) subjects.value = before;
  item = other;
  if (isWanted && !item.explanations.has(asking())) isWanted = false; // the label is no longer among those that are said
  why.hidden = !isPossible || methods.length === 0;
  paint();
}

async function ask(refused) {
  const [asked, wish, method, label] = [item, asking(), methods.value, subjects.value];
  if (!asked.explanations.has(wish)) {
    asked.explanations.set(wish, null);
    paint();
    try {
      asked.explanations.set(wish, await explain(asked.file, { name: asked.name, method, label }));
    } catch (error) {
      asked.explanations.delete(wish); // it may be asked for again
      if (asked === item && wish === asking()) {
        isWanted = false;
        paint();
        text.textContent = error.message;
        text.classList.add("error");
      }
      refused(error);
      return;
    }
  }
  if (asked === item) paint();
}

function paint() {
  const isShown = isWanted && !why.hidden;
  const found = isShown ? item.explanations.get(asking()) : undefined;
  why.setAttribute("aria-pressed", String(isShown));
  document.getElementById("method-row").hidden = !isShown || methods.length < 2;
  document.getElementById("subject-row").hidden = !isShown || subjects.length < 2;
  text.classList.remove("error");
  heat.hidden = !found;
  if (found) {
    heat.src = `data:image/png;base64,${found.overlay}`;
    heat.alt = `The image as the model sees it; what speaks for ${found.label} is orange`;
    text.textContent = `The image as the model sees it; what speaks for ${found.label} is orange.`;
  } else {
    heat.removeAttribute("src");
    text.textContent = isShown ? "Looking for the evidence" : "";
  }
}
