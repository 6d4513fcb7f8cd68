// How the page makes elements: texts are always text, so no label or file name becomes markup.

/** An element with attributes (className among them) and children; strings become text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name === "className" ? "class" : name, value);
  made.append(...children);
  return made;
}
