// The fields that say how the dials are obeyed, filled with what this caller may choose.

import { DIALS, defaults, reachable, reranks, same, takesAdapter, usable, within } from "./envelope.js";
import { byId, el, place, show, two } from "./dom.js";

const MODES = {
  auto: "The server chooses: an adapter where the model has one, else a blend, else wording.",
  prompt: "The levels are worded for the model in the system message.",
  adapter: "An adapter that was trained to be controlled, and its control text.",
  blend: "Adapters, each weighted by a dial, summed into one.",
  off: "The request as it comes; no dial is in force.",
  rerank: "Several answers are drawn without control, and the nearest to the dials is returned.",
  "prompt+rerank": "Several answers are drawn by wording, and the nearest to the dials is returned.",
  "adapter+rerank": "Several answers are drawn by the adapter, and the nearest to the dials is returned.",
  "blend+rerank": "Several answers are drawn by the blend, and the nearest to the dials is returned.",
};
const PLAIN = ["preset", "mode", "model", "adapter", "candidates", "max-tokens"];

/** Holds the dials too. Calls `changed` after every change. */
export class Fields {
  #control = null;
  #changed;
  #dials = { safety: 0.75, helpfulness: 0.75 };

  constructor(changed) {
    this.#changed = changed;
    for (const name of DIALS) byId(name).addEventListener("input", () => this.move({ ...this.#dials, [name]: Number(byId(name).value) }));
    for (const id of PLAIN) byId(id).addEventListener("input", () => this.#choose(id));
  }

  /** Fills them for a caller; what was chosen before stays where this caller may choose it. */
  fill(control, models) {
    const untouched = !this.#control || same(this.#dials, defaults(this.#control));
    this.#control = control;
    options(byId("preset"), [["", "none"], ...Object.keys(control.presets).map((name) => [name, name])]);
    options(byId("mode"), control.modes.map((name) => [name, name]), control.default_mode);
    options(byId("model"), models.map((name) => [name, name]));
    byId("candidates").placeholder = control.reranking ? String(control.reranking.candidates.default) : "";
    this.#set(untouched ? defaults(control) : this.#dials);
  }

  enable(usable) {
    for (const id of PLAIN) byId(id).disabled = !usable;
    for (const name of DIALS) byId(name).disabled = !usable || this.#control.dials[name].locked === true;
  }

  values() {
    return {
      dials: { ...this.#dials },
      preset: byId("preset").value,
      mode: byId("mode").value,
      model: byId("model").value,
      adapter: byId("adapter").value,
      candidates: numberIn("candidates"),
      maxTokens: numberIn("max-tokens"),
    };
  }

  /** By hand, which no preset survives. */
  move(dials) {
    byId("preset").value = "";
    this.#set(dials);
  }

  /** A preset's dials are shown where they are, even out of reach, for those are what the server is asked for. */
  #set(dials) {
    const room = reachable(this.#control);
    const reached = () => Object.fromEntries(DIALS.map((name) => [name, within(dials[name], room[name])]));
    this.#dials = this.#presetDials() ?? reached();
    this.#draw();
    this.#changed();
  }

  #choose(id) {
    const { mode } = this.#preset ?? {};
    if (id === "preset" && mode && this.#control.modes.includes(mode)) byId("mode").value = mode;
    this.#set(this.#dials);
  }

  get #preset() {
    return this.#control.presets[byId("preset").value];
  }

  #presetDials() {
    if (!this.#preset) return null;
    const own = { ...defaults(this.#control), ...this.#preset };
    return Object.fromEntries(DIALS.map((name) => [name, own[name]]));
  }

  #draw() {
    for (const name of DIALS) this.#drawSlider(name);
    byId("point-told").value = `${two(this.#dials.safety)} / ${two(this.#dials.helpfulness)}`;
    const mode = byId("mode").value;
    this.#drawUsable(mode);
    show(byId("candidates-field"), reranks(mode));
    byId("mode-told").textContent = MODES[mode] ?? "";
  }

  /** The choice of an adapter, or of a blend. */
  #drawUsable(mode) {
    const names = usable(this.#control, mode);
    show(byId("adapter-field"), names.length > 0);
    if (!names.length) return;
    byId("adapter-label").textContent = takesAdapter(mode) ? "Adapter" : "Blend";
    options(byId("adapter"), [["", "default"], ...names.map((name) => [name, name])]);
  }

  #drawSlider(name) {
    const slider = byId(name);
    const { min, max, locked } = this.#control.dials[name];
    slider.value = String(this.#dials[name]);
    slider.disabled = locked === true;
    slider.setAttribute("aria-valuetext", two(this.#dials[name]));
    byId(`${name}-told`).value = two(this.#dials[name]);
    place(slider, { from: min, to: max, at: this.#dials[name] });
  }
}

/** What a number field holds, nought too, or null where it is empty. */
function numberIn(id) {
  const value = byId(id).valueAsNumber;
  return Number.isNaN(value) ? null : value;
}

function options(select, choices, wanted) {
  const before = select.value;
  select.replaceChildren(...choices.map(([value, label]) => el("option", { value }, label)));
  const values = choices.map(([value]) => value);
  select.value = values.includes(before) && before ? before : values.includes(wanted) ? wanted : values[0];
}
