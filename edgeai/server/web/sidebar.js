// The list of conversations.

import { all, forget, lasting } from "./conversations.js";
import { byId, make } from "./dom.js";
import { say } from "./words.js";

export async function draw({ current, open, gone }) {
  const conversations = await all();
  byId("private").textContent = say(await lasting() ? "keptHere" : "notKeptHere");
  byId("list").replaceChildren(...conversations.map(each => item(each, each.id === current, { open, gone })));
}

function item(conversation, current, { open, gone }) {
  const options = { type: "button", class: "open", dir: "auto", onclick: () => open(conversation) };
  if (current) options["aria-current"] = "true";
  const remove = async () => {
    if (!confirm(say("sure", conversation))) return;
    await forget(conversation.id);
    gone(conversation);
  };
  return make("li", {},
    make("button", options, conversation.title || say("newChat")),
    make("button", { type: "button", class: "icon", "aria-label": say("remove", conversation), onclick: remove }, "🗑"));
}

export function toggle(open) {
  byId("side").classList.toggle("open", open);
  byId("menu").setAttribute("aria-expanded", byId("side").classList.contains("open"));
}
