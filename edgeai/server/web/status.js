// What the board does now, with the last five minutes as lines.

import { status as read } from "./api.js";
import { make, notice } from "./dom.js";
import { Plot } from "./plot.js";
import { bytes, number, say } from "./words.js";

const EVERY = 2000; // milliseconds; only while somebody looks

const PLOTS = {
  speed: value => say("perSecond", { number: number(value, 1) }),
  queue: value => number(value),
  hits: value => number(value, 0) + " %",
  memory: bytes,
  temperature: value => number(value, 0) + " °C",
};

export class Status {
  constructor() {
    this.timer = null;
    this.before = null;
  }

  enter(view) {
    this.plots = Object.fromEntries(Object.entries(PLOTS).map(([key, format]) => [key, new Plot(say(key), format)]));
    this.facts = make("table");
    view.replaceChildren(make("div", { class: "page" }, make("h2", {}, say("status")),
      make("div", { class: "cards" }, ...Object.values(this.plots).map(plot => plot.element)), this.facts));
    this.before = null;
    this.look();
    this.timer = setInterval(() => document.hidden || this.look(), EVERY);
  }

  leave() {
    clearInterval(this.timer);
  }

  async look() {
    try {
      this.draw(await read());
      notice("");
    } catch (error) {
      notice(error.status === 0 ? say("unreachable") : error.message);
    }
  }

  draw(now) {
    const { before, plots } = this, { counts, memory, device } = now;
    plots.queue.add(counts.running + counts.waiting);
    plots.memory.add(memory.used_bytes, memory.total_bytes);
    plots.temperature.add(device.celsius, 100);
    const grown = name => counts[name] - (before?.counts[name] ?? 0);
    if (before) plots.speed.add(grown("generated_tokens") / (now.uptime_seconds - before.uptime_seconds));
    if (grown("prompt_tokens") > 0) plots.hits.add(100 * grown("cached_tokens") / grown("prompt_tokens"), 100);
    this.before = now.uptime_seconds > (before?.uptime_seconds ?? 0) ? now : null; // started again: counts begin at 0
    this.facts.replaceChildren(make("caption", { class: "hidden" }, say("facts")), ...rows(now));
  }
}

function rows({ name, version, uptime_seconds, models, memory, device, counts }) {
  const hours = Math.floor(uptime_seconds / 3600), minutes = Math.floor(uptime_seconds / 60) % 60;
  const facts = {
    board: name,
    version,
    uptime: say("hoursMinutes", { hours: number(hours), minutes: number(minutes) }),
    models: models.map(model => model.id).join(", "),
    tokensWritten: number(counts.generated_tokens),
    cache: `${bytes(counts.cache_bytes)} / ${bytes(counts.cache_budget_bytes)}`,
    memory: `${bytes(memory.used_bytes)} / ${bytes(memory.total_bytes)}`,
    memoryState: memory.state,
    load: number(device.load, 2),
    power: device.on_battery ? say("onBattery", { percent: number(device.battery_percent) }) : say("onMains"),
    ...(device.restrained ? { restrained: `${device.restrained}: ${number(100 * device.duty, 0)} %` } : {}),
  };
  return Object.entries(facts).map(([key, value]) => make("tr", {}, make("th", { scope: "row" }, say(key)), make("td", { dir: "auto" }, value)));
}
