// The markdown of a model card as elements: headings, paragraphs, lists, tables, code. Nothing in it becomes markup: every text is set as text.

import { element } from "./element.js";

export function elements(markdown) {
  const lines = markdown.replace(/^---\n[\s\S]*?\n---\n/, "").split("\n"); // without the Hub's front matter
  const blocks = [];
  while (lines.length) {
    const line = lines[0];
    if (line.startsWith("```")) blocks.push(code(lines));
    else if (/^#{1,6} /.test(line)) blocks.push(heading(lines.shift()));
    else if (line.startsWith("|")) blocks.push(table(take(lines, (l) => l.startsWith("|"))));
    else if (line.startsWith("- ")) blocks.push(element("ul", {}, ...take(lines, (l) => l.startsWith("- ")).map((l) => element("li", {}, ...inline(l.slice(2))))));
    else if (line.trim() === "") lines.shift();
    else blocks.push(element("p", {}, ...inline(take(lines, (l, i) => i === 0 || (l.trim() !== "" && !/^(```|#|\||- )/.test(l))).join(" "))));
  }
  return blocks;
}

function take(lines, belongs) {
  let n = 0;
  while (n < lines.length && belongs(lines[n], n)) n++;
  return lines.splice(0, n);
}

function code(lines) {
  lines.shift();
  const inside = take(lines, (line) => !line.startsWith("```"));
  lines.shift();
  return element("pre", { tabindex: "0" }, element("code", {}, inside.join("\n")));
}

function heading(line) {
  const level = line.indexOf(" ");
  return element(`h${Math.min(level + 2, 6)}`, {}, ...inline(line.slice(level + 1))); // beneath the dialog's own h2
}

function table(lines) {
  const rows = lines.map((line) => line.replace(/^\|\s?|\s?\|\s*$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|")));
  const body = rows.filter((cells) => !cells.every((cell) => /^:?-+:?$/.test(cell)));
  const line = (cells, tag) => element("tr", {}, ...cells.map((cell) => element(tag, tag === "th" ? { scope: "col" } : {}, ...inline(cell))));
  const [head, ...others] = body;
  const made = element("table", {}, element("thead", {}, line(head ?? [], "th")), element("tbody", {}, ...others.map((cells) => line(cells, "td"))));
  return element("div", { className: "wide", tabindex: "0", role: "group", "aria-label": "Table" }, made);
}

function inline(text) {
  return text.split(/(`[^`]*`|\*\*[^*]+\*\*)/).filter(Boolean).map((part) => {
    if (part.length > 1 && part.startsWith("`")) return element("code", {}, part.slice(1, -1));
    return part.startsWith("**") && part.length > 4 ? element("strong", {}, part.slice(2, -2)) : part;
  });
}
