// The part of Markdown that models write, as elements. Never as HTML: nothing a model writes can become a script or a request.

import { make } from "./dom.js";

const INLINE = /(`+)(.+?)\1|\*\*(.+?)\*\*|\*([^\s*](?:[^*]*[^\s*])?)\*/gs;
const ITEM = /^(\s*)(?:[-*+]|(\d+)[.)])\s+(.*)$/;
const STARTS = /^(#{1,6}\s|```|\s*(?:[-*+]|\d+[.)])\s|\|.*\|\s*$|>)/;

const DEEPEST = 8; // quotes within quotes, lists within lists: what is deeper stays text

export function render(text, depth = 0) {
  const fragment = document.createDocumentFragment();
  const lines = text.split("\n");
  for (let at = 0; at < lines.length;) {
    const [element, next] = block(lines, at, depth);
    if (element) fragment.append(element);
    at = next;
  }
  return fragment;
}

/** The block that begins at line `at`, and where the next one begins. */
function block(lines, at, depth) {
  const line = lines[at];
  if (!line.trim()) return [null, at + 1];
  if (line.startsWith("```")) return code(lines, at);
  const heading = /^(#{1,6})\s+(.*)$/.exec(line);
  if (heading) return [inline(make("h" + Math.min(6, heading[1].length + 2), { dir: "auto" }), heading[2]), at + 1];
  if (ITEM.test(line)) return list(lines, at, depth);
  if (/^\|.*\|\s*$/.test(line) && /^\|[\s:|-]+\|\s*$/.test(lines[at + 1] ?? "")) return table(lines, at);
  if (line.startsWith(">") && depth < DEEPEST) return quote(lines, at, depth);
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !STARTS.test(lines[end])) end += 1;
  return [inline(make("p", { dir: "auto" }), lines.slice(at, end).join("\n")), end];
}

function code(lines, at) {
  let end = at + 1;
  while (end < lines.length && !lines[end].startsWith("```")) end += 1;
  return [make("pre", { tabIndex: 0 }, make("code", {}, lines.slice(at + 1, end).join("\n"))), end + 1];
}

function quote(lines, at, depth) {
  let end = at;
  while (end < lines.length && lines[end].startsWith(">")) end += 1;
  const inner = lines.slice(at, end).map(line => line.replace(/^>\s?/, "")).join("\n");
  return [make("blockquote", {}, render(inner, depth + 1)), end];
}

function list(lines, at, depth) {
  const [, indent, first] = ITEM.exec(lines[at]);
  const element = make(first ? "ol" : "ul", first ? { start: Number(first), dir: "auto" } : { dir: "auto" });
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    if (item && item[1].length < indent.length) break;
    if (item && item[1].length > indent.length && element.lastChild && depth < DEEPEST) {
      const [nested, next] = list(lines, end, depth + 1);
      element.lastChild.append(nested);
      end = next;
    } else if (item && Boolean(item[2]) === Boolean(first)) {
      element.append(inline(make("li"), item[3]));
      end += 1;
    } else if (!item && lines[end].trim() && /^\s/.test(lines[end]) && element.lastChild) {
      inline(element.lastChild, " " + lines[end].trim());
      end += 1;
    } else if (!lines[end].trim() && ITEM.test(lines[end + 1] ?? "")) {
      end += 1; // a blank line between items
    } else {
      break;
    }
  }
  return [element, end];
}

function table(lines, at) {
  let end = at + 2;
  while (end < lines.length && /^\|.*\|\s*$/.test(lines[end])) end += 1;
  const cells = line => line.trim().slice(1, -1).split("|").map(cell => cell.trim());
  const row = tag => line => make("tr", {}, ...cells(line).map(cell => inline(make(tag, { dir: "auto" }), cell)));
  const head = make("thead", {}, row("th")(lines[at]));
  return [make("table", {}, head, make("tbody", {}, ...lines.slice(at + 2, end).map(row("td")))), end];
}

function inline(element, text) {
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    element.append(text.slice(from, match.index));
    if (match[1]) element.append(make("code", {}, match[2].trim()));
    else element.append(inline(make(match[3] ? "strong" : "em"), match[3] ?? match[4]));
    from = match.index + match[0].length;
  }
  element.append(text.slice(from));
  return element;
}
