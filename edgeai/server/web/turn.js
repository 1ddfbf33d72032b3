// One turn of a conversation, as it is shown.

import { copy, announce, make } from "./dom.js";
import { render } from "./markdown.js";
import { say } from "./words.js";

/** The element of a message; `actions` are [key of a message, what to do] in the order of their buttons. */
export function show(message, actions = []) {
  const mine = message.role === "user";
  const body = make("div", { class: "body", dir: "auto" });
  const element = make("article", { class: "turn " + message.role }, make("h2", {}, say(mine ? "you" : "assistant")));
  if (message.files?.length) element.append(files(message.files));
  element.append(body);
  if (mine) body.textContent = message.content;
  else fill(body, message);
  element.append(make("div", { class: "tools" }, ...actions.map(([key, act]) => button(key, act))));
  return element;
}

/** The answer as it stands; its reasoning is folded away. */
export function fill(body, { content, reasoning }) {
  const open = body.querySelector("details")?.open;
  body.replaceChildren(render(content));
  if (!reasoning) return;
  body.prepend(make("details", { open: open ?? false }, make("summary", {}, say("reasoning")), render(reasoning)));
}

export function files(list, remove = null) {
  return make("ul", { class: "files", "aria-label": say("files") }, ...list.map((file, at) => make(
    "li", {}, "📄 " + file.name,
    remove && make("button", { type: "button", "aria-label": say("removeFile", file), onclick: () => remove(at) }, "✕"),
  )));
}

export function failure(text, retry) {
  return make("div", { class: "turn" }, make("div", { class: "error", role: "alert" }, text), button("retry", retry));
}

export async function copied(text) {
  await copy(text);
  announce(say("copied"));
}

const button = (key, act) => make("button", { type: "button", onclick: act }, say(key));
