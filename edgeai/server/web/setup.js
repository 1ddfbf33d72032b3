// The first start, and later changes: language, the server's key, the model.

import { ApiError, models, status } from "./api.js";
import { byId, make, notice } from "./dom.js";
import { recall, remember } from "./settings.js";
import { LANGUAGES, choose, language, say } from "./words.js";

/** `changed` is called with a new language, `done` when the server takes the key and has models. */
export function show(view, { changed, done }) {
  const field = (key, input) => make("label", {}, say(key), input);
  const name = make("input", { value: recall("name"), placeholder: byId("board").textContent, autocomplete: "off" });
  const key = make("input", { type: "password", value: recall("key"), autocomplete: "current-password" });
  const model = make("select");
  const result = make("p", { role: "status" });
  const speaks = make("select", { onchange: async () => { await choose(speaks.value); changed(); } },
    ...Object.entries(LANGUAGES).map(([tag, own]) => make("option", { value: tag, lang: tag, selected: tag === language() }, own)));
  const save = async event => {
    event.preventDefault();
    remember("name", name.value.trim());
    remember("key", key.value.trim());
    if (model.value) remember("model", model.value);
    if (await list(model, result)) done();
  };
  view.replaceChildren(make("div", { class: "page" }, make("h2", {}, say("setup")), make("p", {}, say("welcome")),
    make("form", { class: "fields", onsubmit: save },
      field("language", speaks), field("boardName", name), field("key", key), make("p", { class: "small" }, say("keyHelp")),
      field("model", model), result, make("button", { class: "main" }, say("save")))));
  list(model, result);
}

/** Offer the models that the server has, and whether it let us ask. */
async function list(model, result) {
  try {
    const names = await models();
    const chosen = recall("model");
    model.replaceChildren(...names.map(each => make("option", { value: each, selected: each === chosen }, each)));
    result.textContent = say(names.length ? "ready" : "noModel");
    notice("");
    return names.length > 0;
  } catch (error) {
    model.replaceChildren();
    result.textContent = problem(error);
    return false;
  }
}

function problem(error) {
  if (!(error instanceof ApiError)) throw error;
  if (error.status === 0) return say("unreachable");
  return error.status === 401 ? say("keyWanted") : error.message;
}

/** The name to show for the board: the reader's own, or the one that it gives itself. */
export async function boardName() {
  const own = recall("name");
  if (own) return own;
  try {
    return (await status()).name;
  } catch {
    return "edgeai"; // it could not be reached or wants a key: whatever is asked next says so
  }
}
