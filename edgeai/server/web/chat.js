// The chat: a log of turns, and the form below it.

import { ApiError, chat as ask } from "./api.js";
import { read } from "./attachments.js";
import { asMarkdown, begin, keep, prompt } from "./conversations.js";
import { announce, byId, download, make, notice } from "./dom.js";
import * as turns from "./turn.js";
import { say } from "./words.js";

const TITLE = 60; // characters

export class Chat {
  /** `changed` is called when the list of conversations has to be drawn again, `locked` when the server wants a key. */
  constructor({ changed, locked }) {
    this.changed = changed;
    this.locked = locked;
    this.conversation = begin();
    this.files = [];
    this.running = null;
    this.log = make("div", { class: "log", role: "log", "aria-live": "polite", tabIndex: 0 });
    this.form = this.makeForm();
  }

  makeForm() {
    this.text = make("textarea", { id: "text", rows: 1, dir: "auto", required: true, onkeydown: event => this.key(event) });
    this.send = make("button", { class: "main" });
    this.stop = make("button", { type: "button", hidden: true, onclick: () => this.running?.abort() });
    this.input = make("input", { type: "file", multiple: true, hidden: true, onchange: () => this.attach([...this.input.files]) });
    this.add = make("button", { type: "button", class: "icon", onclick: () => this.input.click() }, "📎");
    this.attached = make("div");
    this.label = make("label", { htmlFor: "text", class: "small" });
    const row = make("div", { class: "row" }, this.add, this.input, this.text, this.send, this.stop);
    const submit = event => { event.preventDefault(); this.submit(); };
    return make("form", { class: "ask", onsubmit: submit }, this.attached, this.label, row);
  }

  /** Put the chat into `view`, in the language of now. */
  enter(view) {
    this.label.textContent = say("ask");
    this.text.placeholder = say("message");
    this.send.textContent = say("send");
    this.stop.textContent = say("stop");
    this.add.setAttribute("aria-label", say("attach"));
    this.add.title = say("attach");
    view.replaceChildren(this.log, this.form);
    if (!this.running) this.draw();
    this.text.focus({ preventScroll: true });
  }

  open(conversation) {
    this.running?.abort();
    this.conversation = conversation;
    this.files = [];
    this.draw();
  }

  draw() {
    const { messages } = this.conversation;
    this.log.setAttribute("aria-label", this.conversation.title || say("newChat"));
    this.log.replaceChildren(...messages.map((message, at) => turns.show(message, this.actions(message, at))));
    if (!messages.length) this.log.append(make("p", { class: "empty" }, say("empty")));
    else this.log.append(this.exports());
    this.drawFiles();
    this.log.scrollTop = this.log.scrollHeight;
  }

  drawFiles() {
    const remove = at => { this.files.splice(at, 1); this.drawFiles(); };
    this.attached.replaceChildren(...(this.files.length ? [turns.files(this.files, remove)] : []));
  }

  actions(message, at) {
    const copying = ["copy", () => turns.copied(message.content)];
    return message.role === "user"
      ? [copying, ["edit", () => this.edit(at)]]
      : [copying, ["retry", () => this.answer(this.conversation.messages.slice(0, at))]];
  }

  exports() {
    const name = (this.conversation.title || "chat").replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40);
    const save = (ending, type, text) => () => download(`${name}.${ending}`, type, text(this.conversation));
    const button = (key, act) => make("button", { type: "button", onclick: act }, say(key));
    return make("div", { class: "tools" },
      button("exportText", save("md", "text/markdown", asMarkdown)),
      button("exportJson", save("json", "application/json", each => JSON.stringify(each, null, 2))));
  }

  key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.submit();
  }

  async attach(chosen) {
    notice("");
    for (const file of chosen) {
      try {
        this.files.push(await read(file));
      } catch (error) {
        notice(say(error.message, file));
      }
    }
    this.input.value = "";
    this.drawFiles();
    this.text.focus();
  }

  submit() {
    const content = this.text.value.trim();
    if (!content || this.running) return;
    const files = this.files.length ? { files: this.files } : {};
    this.files = [];
    this.text.value = "";
    this.answer([...this.conversation.messages, { role: "user", content, ...files }]);
  }

  /** A turn of the user's again, with other words; what came after it goes. */
  edit(at) {
    if (this.running) return;
    const message = this.conversation.messages[at];
    const text = make("textarea", { value: message.content, dir: "auto", "aria-label": say("edit") });
    const again = event => {
      event.preventDefault();
      if (text.value.trim()) this.answer([...this.conversation.messages.slice(0, at), { ...message, content: text.value.trim() }]);
    };
    const form = make("form", { class: "turn edit", onsubmit: again }, text, make("div", { class: "tools" },
      make("button", {}, say("send")), make("button", { type: "button", onclick: () => this.draw() }, say("cancel"))));
    this.log.children[at].replaceWith(form);
    text.focus();
  }

  /** Let the model answer `messages`, which become the conversation. */
  async answer(messages) {
    if (this.running) return;
    const { conversation } = this, controller = this.running = new AbortController();
    conversation.messages = messages;
    conversation.title ||= messages[0].content.split("\n")[0].slice(0, TITLE);
    this.draw();
    this.busy(true);
    await this.saved(conversation);
    const reply = { role: "assistant", content: "" };
    let failed = null;
    try {
      await this.receive(reply, prompt(messages), controller.signal);
    } catch (error) {
      if (error.name !== "AbortError") failed = error;
    }
    if (reply.content || reply.reasoning) conversation.messages = [...messages, reply];
    await this.saved(conversation);
    this.running = null;
    if (conversation === this.conversation) this.finish(messages, failed);
    this.busy(false);
  }

  finish(messages, failed) {
    this.draw();
    announce(failed ? "" : say("answered"));
    if (failed?.status === 401) this.locked();
    else if (failed) this.log.append(turns.failure(explain(failed), () => this.answer(messages)));
    this.log.scrollTop = this.log.scrollHeight;
  }

  async receive(reply, messages, signal) {
    const element = turns.show(reply), body = element.querySelector(".body");
    body.classList.add("busy");
    this.log.append(element);
    let drawing = 0;
    const draw = () => {
      drawing = 0;
      const follow = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 120;
      turns.fill(body, reply);
      if (follow) this.log.scrollTop = this.log.scrollHeight;
    };
    for await (const piece of ask(byId("model").value, messages, signal)) {
      reply.content += piece.content;
      if (piece.reasoning) reply.reasoning = (reply.reasoning ?? "") + piece.reasoning;
      drawing ||= requestAnimationFrame(draw); // a slow phone draws less often, and reads as fast
    }
    cancelAnimationFrame(drawing);
  }

  busy(on) {
    this.send.hidden = on;
    this.stop.hidden = !on;
    this.log.setAttribute("aria-busy", on); // readers wait for the whole answer
    if (!on) this.text.focus({ preventScroll: true });
  }

  async saved(conversation) {
    try {
      await keep(conversation);
    } catch {
      notice(say("notKept"));
    }
    await this.changed();
  }
}

function explain(error) {
  if (!(error instanceof ApiError)) return error.message;
  if (error.status === 0) return say("unreachable");
  if (error.wait) return say("busy", { seconds: error.wait });
  return error.message;
}
