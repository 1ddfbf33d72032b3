// A value with its recent course. Screen readers get the value; the line is decoration.

import { make } from "./dom.js";

const KEPT = 150; // readings; five minutes at one in two seconds
const SVG = "http://www.w3.org/2000/svg";

export class Plot {
  constructor(title, format) {
    this.values = [];
    this.format = format;
    this.value = make("p", { class: "value" }, "–");
    this.line = document.createElementNS(SVG, "polyline");
    const drawing = document.createElementNS(SVG, "svg");
    drawing.setAttribute("viewBox", `0 0 ${KEPT - 1} 100`);
    drawing.setAttribute("preserveAspectRatio", "none");
    drawing.setAttribute("aria-hidden", "true");
    drawing.append(this.line);
    this.element = make("section", { class: "card" }, make("h3", {}, title), this.value, drawing);
  }

  /** Add a reading; null where there is none. `top` is the value at the upper edge, or the largest one so far. */
  add(value, top = null) {
    this.element.hidden = value === null && !this.values.length;
    if (value === null) return;
    this.values = [...this.values, value].slice(-KEPT);
    this.value.textContent = this.format(value);
    const scale = 96 / (top || Math.max(...this.values) || 1);
    const start = KEPT - this.values.length;
    this.line.setAttribute("points", this.values.map((each, at) => `${start + at},${98 - each * scale}`).join(" "));
  }
}
