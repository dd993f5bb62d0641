// The tab that fills the plane in: answers at a grid of dials, coloured by what was measured of them.

import { byId, show } from "./dom.js";
import { isWhole, limits, within } from "./envelope.js";
import { HeatMap } from "./heat_map.js";
import { RunButtons } from "./run_buttons.js";
import { Speaker } from "./speaker.js";
import { errorView } from "./errors.js";
import { events } from "./api.js";
import { sweepBody } from "./request.js";

export class Sweep {
  #page;
  #map = null;
  #buttons = new RunButtons("run-sweep", "stop-sweep");

  constructor(page) {
    this.#page = page;
    byId("run-sweep").addEventListener("click", () => this.run());
    byId("sweep-measure").addEventListener("change", () => this.#map?.colourBy(byId("sweep-measure").value));
  }

  /** What can be swept depends on the caller's envelope. */
  fit(control) {
    show(byId("whole-plane-field"), control.outside !== "reject" && !isWhole(control));
  }

  async run() {
    const asked = this.#page.asked();
    if (!asked || this.#buttons.running) return;
    const levels = this.#levels();
    const speaker = new Speaker();
    const signal = this.#buttons.begin();
    try {
      this.#show(levels);
      await this.#fill(sweepBody(asked, levels), { points: levels.safety.length * levels.helpfulness.length, signal, speaker });
    } catch (problem) {
      this.#failed(problem, speaker);
    } finally {
      this.#buttons.end();
    }
  }

  /** The number of points is seen at each of them, and said at each quarter. */
  async #fill(body, { points, signal, speaker }) {
    const quarters = new Set([1, 2, 3].map((quarter) => Math.ceil((quarter * points) / 4)));
    tell(`0 of ${points} points…`, speaker);
    for await (const point of events("control/sweep", body, signal)) {
      this.#map.fill(point);
      const { filled } = this.#map;
      tell(`${filled} of ${points} points…`, quarters.has(filled) ? speaker : null);
    }
    const { filled, failed } = this.#map;
    tell(`${filled} of ${points} points, done${failed ? `; ${failed} failed` : ""}.`, speaker);
  }

  #show(levels) {
    const measured = this.#page.control.reranking !== undefined;
    this.#map = new HeatMap(levels, { measured });
    this.#map.colourBy(byId("sweep-measure").value);
    byId("sweep-measure").disabled = !measured;
    byId("swept").replaceChildren(this.#map.element);
  }

  #failed(problem, speaker) {
    const stopped = problem.name === "AbortError";
    tell(stopped ? "Stopped." : "", speaker);
    if (!stopped) byId("swept").prepend(errorView(problem));
    this.#page.refused(problem);
  }

  #levels() {
    const steps = Number(byId("sweep-size").value) - 1;
    const everywhere = byId("whole-plane").checked && !byId("whole-plane-field").hidden;
    const ranges = everywhere ? { safety: [0, 1], helpfulness: [0, 1] } : limits(this.#page.control);
    return Object.fromEntries(Object.entries(ranges).map(([name, range]) => [name, spread(range, steps)]));
  }
}

/** Seen by all, and said to those who do not see it where a speaker is given. */
function tell(sentence, speaker) {
  byId("sweep-status").textContent = sentence;
  speaker?.say(sentence);
}

/** Even steps from the least to the greatest, and never beyond them; one level where both are the same. */
function spread([least, most], steps) {
  const rounded = (value) => within(Math.round(1e4 * value) / 1e4, [least, most]);
  const all = Array.from({ length: steps + 1 }, (_, step) => rounded(least + (step * (most - least)) / steps));
  return [...new Set(all)];
}
