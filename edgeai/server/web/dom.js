// Elements without HTML strings: what a model or a person wrote can never become markup.

/** An element with properties, or attributes where `name` has a hyphen or is not a property; children may be text. */
export function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

export const byId = id => document.getElementById(id);

/** Tell people who cannot see the page. */
export function announce(text) {
  byId("said").textContent = text;
}

/** A line above everything, for what concerns the whole page; an empty text takes it away. */
export function notice(text) {
  const line = byId("notice");
  if (line.textContent !== text) line.textContent = text;
  line.hidden = !text;
}

export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Text to the clipboard; pages without TLS have only the old way. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = make("textarea", { value: text, class: "hidden", readOnly: true });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("copy");
}
