// The images side by side, small: a list box with one stop for the Tab key, where the arrow keys choose.

import { element } from "./element.js";

const place = document.getElementById("strip");

export class Strip {
  #options = new Map(); // item -> element
  #chosen = null;

  /** choose(item): the reader picked another; remove(item): wants it away. */
  constructor({ choose, remove }) {
    this.choose = choose;
    this.remove = remove;
    place.addEventListener("keydown", (event) => this.#key(event));
  }

  get items() {
    return [...this.#options.keys()];
  }

  add(item) {
    const canvas = element("canvas", { className: "thumb", "aria-hidden": "true", width: 1, height: 1 });
    const name = element("span", { className: "thumb-name" }, item.name);
    const option = element("div", { className: "option", role: "option", id: item.id, tabindex: "-1", "aria-selected": "false" }, canvas, name, element("span", { className: "thumb-answer" }));
    option.title = item.name;
    option.addEventListener("click", () => this.choose(item));
    place.append(option);
    this.#options.set(item, option);
    return canvas;
  }

  /** The short answer beneath an image. */
  tell(item, text, { isUnsure = false } = {}) {
    const option = this.#options.get(item);
    if (!option) return;
    option.dataset.state = item.state;
    option.lastElementChild.textContent = text;
    option.lastElementChild.classList.toggle("unsure", isUnsure);
  }

  select(item) {
    for (const [other, option] of this.#options) {
      option.setAttribute("aria-selected", String(other === item));
      option.tabIndex = other === item ? 0 : -1;
    }
    this.#chosen = item;
    const option = this.#options.get(item);
    option?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** Take an image away; the one that takes its place, or null. */
  delete(item) {
    const items = this.items;
    const at = items.indexOf(item);
    this.#options.get(item)?.remove();
    this.#options.delete(item);
    return items[at + 1] ?? items[at - 1] ?? null;
  }

  focus() {
    this.#options.get(this.#chosen)?.focus();
  }

  #key(event) {
    const items = this.items;
    const at = items.indexOf(this.#chosen);
    const to = { ArrowLeft: at - 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowDown: at + 1, Home: 0, End: items.length - 1 }[event.key];
    if (event.key === "Delete") this.remove(this.#chosen);
    else if (to !== undefined) this.choose(items[Math.min(Math.max(to, 0), items.length - 1)]);
    else return;
    event.preventDefault();
    this.focus();
  }
}
