// Puts the page together: language, views, the list of conversations, the choice of the model.

import { models } from "./api.js";
import { Chat } from "./chat.js";
import { begin } from "./conversations.js";
import { byId, make, notice } from "./dom.js";
import { recall, remember } from "./settings.js";
import * as setup from "./setup.js";
import * as sidebar from "./sidebar.js";
import { Status } from "./status.js";
import { say, speak, translate } from "./words.js";

const chat = new Chat({ changed: drawSidebar, locked: () => { location.hash = "#setup"; } });
const status = new Status();

async function drawSidebar() {
  await sidebar.draw({
    current: chat.conversation.id,
    open: conversation => { chat.open(conversation); go("#chat"); },
    gone: ({ id }) => { if (id === chat.conversation.id) chat.open(begin()); drawSidebar(); },
  });
}

/** Show the view that the address names. */
function show() {
  const name = ["#status", "#setup"].includes(location.hash) ? location.hash : "#chat";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  status.leave();
  sidebar.toggle(false);
  const view = byId("view");
  if (name === "#chat") chat.enter(view);
  else if (name === "#status") status.enter(view);
  else setup.show(view, { changed: redraw, done: async () => { await listModels(); go("#chat"); } });
}

function go(hash) {
  if (location.hash === hash) show();
  else location.hash = hash;
  drawSidebar();
}

async function redraw() {
  translate(document);
  await drawSidebar();
  show();
}

/** Fill in the choice of models; where that is not possible the set-up view says why. */
async function listModels() {
  const box = byId("model"), chosen = recall("model");
  byId("board").textContent = document.title = await setup.boardName();
  try {
    const names = await models();
    box.replaceChildren(...names.map(each => make("option", { value: each, selected: each === chosen }, each)));
    return true;
  } catch (error) {
    if (error.status === 401) location.hash = "#setup";
    else notice(error.status === 0 ? say("unreachable") : error.message);
    return false;
  }
}

byId("model").addEventListener("change", event => remember("model", event.target.value));
byId("menu").addEventListener("click", () => sidebar.toggle());
byId("new").addEventListener("click", () => { chat.open(begin()); go("#chat"); });
addEventListener("hashchange", show);
addEventListener("online", listModels);
addEventListener("keydown", event => { if (event.key === "Escape") chat.running?.abort(); });

await speak();
show();
await drawSidebar();
await listModels();
// Only where the page is trusted (TLS or this machine itself) may it be installed and open without the board.
if ("serviceWorker" in navigator) navigator.serviceWorker.register("/sw.js").catch(() => {});
