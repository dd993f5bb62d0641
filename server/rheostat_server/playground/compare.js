// The tab that answers one prompt at several points, side by side.

import { byId, el, show, two } from "./dom.js";
import { RunButtons } from "./run_buttons.js";
import { defaults, reranks, takesAdapter, takesBlend } from "./envelope.js";
import { stream } from "./streamed.js";

/** Answers that run side by side, fewer than most callers may have. */
const AT_ONCE = 3;

export class Compare {
  #page;
  #points = [];
  #made = 0;
  #buttons = new RunButtons("run-all", "stop-all");

  constructor(page) {
    this.#page = page;
    byId("add-point").addEventListener("click", () => this.#add(this.#page.fields()));
    byId("add-presets").addEventListener("click", () => this.#addPresets());
    byId("run-all").addEventListener("click", () => this.run());
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
    if (!asked || this.#buttons.running || !this.#points.length) return;
    const given = { asked, control: this.#page.control, signal: this.#buttons.begin() };
    const points = [...this.#points];
    byId("compare-status").textContent = `Answering at ${points.length} points…`;
    try {
      await this.#answerAll(points, given);
      byId("compare-status").textContent = given.signal.aborted ? "Stopped." : this.#ended(points);
    } finally {
      this.#buttons.end();
    }
  }

  /** A caller that may have fewer answers at once than are asked for is refused some, and they are asked for again. */
  async #answerAll(points, given) {
    const waiting = [...points];
    const workers = Array.from({ length: AT_ONCE }, async () => {
      for (let point = waiting.shift(); point; point = waiting.shift()) await this.#answer(point, given);
    });
    await Promise.all(workers);
    for (const point of points.filter(({ problem }) => problem?.status === 429)) await this.#answer(point, given);
  }

  /** A point that was removed meanwhile is not asked for. */
  async #answer(point, { asked: { prompt, system }, control, signal }) {
    if (!this.#points.includes(point)) return;
    const { problem } = await stream({ ...point.fields, prompt, system }, { box: point.box, control, signal });
    point.problem = problem;
    this.#page.refused(problem);
  }

  #ended(points) {
    const still = points.filter((point) => this.#points.includes(point));
    const failed = still.filter(({ problem }) => problem).length;
    return failed ? `Answered at ${still.length - failed} of ${still.length} points; ${failed} failed.` : `Answered at ${still.length} points.`;
  }

  #addPresets() {
    const fields = this.#page.fields();
    for (const [preset, { mode, ...dials }] of Object.entries(this.#page.control.presets)) {
      this.#add({ ...fields, preset, mode: mode ?? fields.mode, dials: { ...defaults(this.#page.control), ...dials } });
    }
  }

  #add(fields) {
    this.#made += 1;
    const point = { number: this.#made, fields, problem: null, box: el("div", { class: "compared-answer" }) };
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
    byId("run-all").disabled = !this.#points.length || !this.#page.control;
    show(byId("compare-empty"), !this.#points.length);
    this.#page.changed();
  }
}

function meansTold({ preset, mode, adapter, candidates, model }) {
  const uses = takesAdapter(mode) || takesBlend(mode);
  const parts = [preset, model, `mode ${mode}`, uses && adapter, candidates !== null && reranks(mode) && `${candidates} candidates`];
  return parts.filter(Boolean).join(" · ");
}
