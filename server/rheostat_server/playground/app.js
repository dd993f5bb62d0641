// The playground: what the caller may set is asked of the server, and the parts of the page are put together.

import { Answer } from "./answer.js";
import { Compare } from "./compare.js";
import { Fields } from "./fields.js";
import { KeyDialog } from "./key_dialog.js";
import { Plane } from "./plane.js";
import { Sweep } from "./sweep.js";
import { Tabs } from "./tabs.js";
import { ApiError, get, noAnswer } from "./api.js";
import { byId, el, show } from "./dom.js";
import { errorView } from "./errors.js";
import { snippetViews } from "./snippets.js";
import { told } from "./envelope.js";

const RUNS = { answer: "run", compare: "run-all", sweep: "run-sweep" };

class Page {
  control = null;
  #loads = 0;
  #fields = new Fields(() => this.changed());
  #plane = new Plane((dials) => this.#fields.move(dials));
  #keys = new KeyDialog(() => this.load());
  #answer = new Answer(this);
  #compare = new Compare(this);
  #sweep = new Sweep(this);
  #tabs = new Tabs(["answer", "compare", "sweep", "code"], () => this.changed());

  constructor() {
    for (const id of ["prompt", "system"]) byId(id).addEventListener("input", () => this.changed());
    document.addEventListener("keydown", (event) => this.#shortcut(event));
    this.#enable(false);
  }

  /** Where another key is given before the answers for the one before have come, those are dropped. */
  async load() {
    const nth = (this.#loads += 1);
    try {
      const [control, models] = await Promise.all([get("control"), get("models")]);
      if (nth === this.#loads) this.#loaded(control, models);
    } catch (problem) {
      if (nth === this.#loads) this.#cannotLoad(problem);
    }
  }

  fields() {
    return this.#fields.values();
  }

  /** Everything that a request says, or null where something is missing, which the page then asks for. */
  asked() {
    if (!this.control) return null;
    const prompt = byId("prompt").value;
    byId("prompt").setAttribute("aria-invalid", String(!prompt.trim()));
    if (prompt.trim()) return { ...this.fields(), prompt, system: byId("system").value };
    byId("prompt").focus();
    return null;
  }

  /** Draws what hangs on the fields. */
  changed() {
    if (!this.control) return;
    this.#plane.draw(this.control, this.fields(), this.#compare.pins);
    if (this.#tabs.current !== "code") return;
    const asked = { ...this.fields(), prompt: byId("prompt").value, system: byId("system").value };
    byId("snippets").replaceChildren(...snippetViews(asked));
  }

  /** A request that failed for want of a key asks for one. */
  refused(problem) {
    if (problem?.status === 401) this.#keys.open(problem.message);
  }

  #loaded(control, models) {
    if (!control?.dials || !models?.data) throw noAnswer();
    this.control = control;
    show(byId("notice"), false);
    this.#fields.fill(control, baseModels(models.data, control.presets));
    this.#sweep.fit(control);
    byId("envelope-told").textContent = told(control);
    this.#enable(true);
  }

  #cannotLoad(problem) {
    this.control = null;
    this.#enable(false);
    this.refused(problem);
    const again = el("button", { type: "button", onclick: () => this.load() }, "Try again");
    byId("notice").replaceChildren(errorView(problem), again);
    show(byId("notice"), true);
    if (!(problem instanceof ApiError)) throw problem;
  }

  #enable(usable) {
    for (const id of [...Object.values(RUNS), "add-point", "add-presets"]) byId(id).disabled = !usable;
    this.#fields.enable(usable);
    this.#plane.enable(usable);
    this.#compare.fit();
  }

  #shortcut(event) {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || byId("key-dialog").open) return;
    event.preventDefault();
    byId(RUNS[this.#tabs.current])?.click();
  }
}

/** The names that are no preset of another. */
function baseModels(models, presets) {
  const names = models.map(({ id }) => id);
  const made = new Set(names.flatMap((name) => Object.keys(presets).map((preset) => `${name}:${preset}`)));
  return names.filter((name) => !made.has(name));
}

new Page().load();
