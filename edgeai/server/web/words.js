// The interface's language: one file of messages for each, English where one is missing.

import { recall, remember } from "./settings.js";

export const LANGUAGES = {
  en: "English", fr: "Français", sw: "Kiswahili", pt: "Português", es: "Español",
  ar: "العربية", hi: "हिन्दी", id: "Bahasa Indonesia", zh: "中文",
};
const RIGHT_TO_LEFT = new Set(["ar"]);
let messages = {};

/** The language that was chosen, or the first of the browser's that there is. */
export function language() {
  const wished = [recall("language"), ...navigator.languages].map(tag => tag.split("-")[0].toLowerCase());
  return wished.find(tag => tag in LANGUAGES) ?? "en";
}

export async function speak(tag = language()) {
  messages = { ...await read("en"), ...(tag === "en" ? {} : await read(tag)) };
  document.documentElement.lang = tag;
  document.documentElement.dir = RIGHT_TO_LEFT.has(tag) ? "rtl" : "ltr";
  translate(document);
}

export async function choose(tag) {
  remember("language", tag);
  await speak(tag);
}

async function read(tag) {
  const answer = await fetch(`/web/messages/${tag}.json`);
  return answer.ok ? answer.json() : {};
}

/** The message `key`; `{name}` in it stands for `values.name`. */
export function say(key, values = {}) {
  return (messages[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/** Fill in elements that name their message in data-text or data-label. */
export function translate(root) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) element.setAttribute("aria-label", say(element.dataset.label));
}

export const number = (value, digits = 0) =>
  new Intl.NumberFormat(document.documentElement.lang, { maximumFractionDigits: digits }).format(value);

/** Bytes in MB or GB, as people read them on a box of memory cards. */
export function bytes(value) {
  const large = value >= 1e9;
  const format = { style: "unit", unit: large ? "gigabyte" : "megabyte", maximumFractionDigits: large ? 1 : 0 };
  return new Intl.NumberFormat(document.documentElement.lang, format).format(value / (large ? 1e9 : 1e6));
}
