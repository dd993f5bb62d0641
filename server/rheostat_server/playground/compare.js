// The tab that answers one prompt at several points, side by side.

import { byId, el, show, two } from "./dom.js";
import { defaults, reranks, takesAdapter } from "./envelope.js";
import { stream } from "./streamed.js";

/** Answers that run side by side, fewer than most callers may have. */
const AT_ONCE = 3;

export class Compare {
  #page;
  #points = [];
  #made = 0;
  #running = null;

  constructor(page) {
    this.#page = page;
    byId("add-point").addEventListener("click", () => this.#add(this.#page.fields()));
    byId("add-presets").addEventListener("click", () => this.#addPresets());
    byId("run-all").addEventListener("click", () => this.run());
    byId("stop-all").addEventListener("click", () => this.#running?.abort());
    this.#tell();
  }

  /** What can be done depends on the points. */
  fit() {
    this.#tell();
  }

  /** Those that the plane shows. */
  get pins() {
    return this.#points.map(({ number, fields }) => ({ number, at: fields.dials }));
  }

  async run() {
    const asked = this.#page.asked();
    if (!asked || this.#running || !this.#points.length) return;
    this.#begin();
    const { signal } = this.#running;
    const waiting = [...this.#points];
    const workers = Array.from({ length: AT_ONCE }, async () => {
      for (let point = waiting.shift(); point; point = waiting.shift()) await this.#answer(point, asked, signal);
    });
    await Promise.all(workers);
    for (const point of this.#points.filter(({ refused }) => refused)) await this.#answer(point, asked, signal);
    this.#end();
  }

  /** A caller that may have fewer answers at once than are asked for is refused some, and they are asked for again. */
  async #answer(point, { prompt, system }, signal) {
    const asked = { ...point.fields, prompt, system };
    const { problem } = await stream(asked, { box: point.box, control: this.#page.control, signal });
    point.refused = problem?.status === 429;
    this.#page.refused(problem);
  }

  #begin() {
    this.#running = new AbortController();
    show(byId("stop-all"), true);
    byId("compare-status").textContent = `Answering at ${this.#points.length} points…`;
    this.#tell();
  }

  #end() {
    const stopped = this.#running.signal.aborted;
    this.#running = null;
    show(byId("stop-all"), false);
    byId("compare-status").textContent = stopped ? "Stopped." : `Answered at ${this.#points.length} points.`;
    this.#tell();
  }

  #addPresets() {
    const fields = this.#page.fields();
    for (const [preset, { mode, ...dials }] of Object.entries(this.#page.control.presets)) {
      this.#add({ ...fields, preset, mode: mode ?? fields.mode, dials: { ...defaults(this.#page.control), ...dials } });
    }
  }

  #add(fields) {
    this.#made += 1;
    const point = { number: this.#made, fields, box: el("div", { class: "compared-answer" }) };
    point.card = this.#card(point);
    this.#points.push(point);
    byId("compared").append(point.card);
    byId("compare-status").textContent = `Point ${point.number} added.`;
    this.#tell();
  }

  #card(point) {
    const { number, fields } = point;
    return el(
      "li",
      { class: "compared-point" },
      el(
        "div",
        { class: "compared-head" },
        el("span", { class: "pin-label", "aria-hidden": "true" }, String(number)),
        el("h3", {}, `Safety ${two(fields.dials.safety)}, helpfulness ${two(fields.dials.helpfulness)}`),
        el("button", { type: "button", class: "quiet", "aria-label": `Remove point ${number}`, onclick: () => this.#remove(point) }, "×"),
      ),
      el("p", { class: "hint" }, meansTold(fields)),
      point.box,
    );
  }

  #remove(point) {
    this.#points = this.#points.filter((one) => one !== point);
    point.card.remove();
    byId("compare-status").textContent = `Point ${point.number} removed.`;
    byId("add-point").focus();
    this.#tell();
  }

  #tell() {
    byId("run-all").disabled = !this.#points.length || this.#running !== null;
    show(byId("compare-empty"), !this.#points.length);
    this.#page.changed();
  }
}

function meansTold({ preset, mode, adapter, candidates, model }) {
  const parts = [preset, model, `mode ${mode}`, adapter && takesAdapter(mode) && adapter, candidates && reranks(mode) && `${candidates} candidates`];
  return parts.filter(Boolean).join(" · ");
}
