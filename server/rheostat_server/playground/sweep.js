// The tab that fills the plane in: answers at a grid of dials, coloured by what was measured of them.

import { byId, el, show, two } from "./dom.js";
import { isWhole, limits } from "./envelope.js";
import { HeatMap } from "./heat_map.js";
import { errorView } from "./errors.js";
import { events } from "./api.js";
import { sweepBody } from "./request.js";

export class Sweep {
  #page;
  #map = null;
  #running = null;

  constructor(page) {
    this.#page = page;
    byId("run-sweep").addEventListener("click", () => this.run());
    byId("stop-sweep").addEventListener("click", () => this.#running?.abort());
    byId("sweep-measure").addEventListener("change", () => this.#map?.colourBy(byId("sweep-measure").value));
  }

  /** What can be swept depends on the caller's envelope. */
  fit(control) {
    show(byId("whole-plane-field"), control.outside !== "reject" && !isWhole(control));
  }

  async run() {
    const asked = this.#page.asked();
    if (!asked || this.#running) return;
    const levels = this.#levels();
    const points = levels.safety.length * levels.helpfulness.length;
    this.#begin(levels);
    try {
      await this.#fill(sweepBody(asked, levels), points);
      byId("sweep-status").textContent = `${this.#map.filled} of ${points} points, done.`;
    } catch (problem) {
      this.#failed(problem);
    }
    this.#end();
  }

  async #fill(body, points) {
    for await (const point of events("control/sweep", body, this.#running.signal)) {
      this.#map.fill(point);
      byId("sweep-status").textContent = `${this.#map.filled} of ${points} points…`;
    }
  }

  #begin(levels) {
    const measured = this.#page.control.reranking !== undefined;
    this.#running = new AbortController();
    this.#map = new HeatMap(levels, { measured });
    this.#map.colourBy(byId("sweep-measure").value);
    byId("sweep-measure").disabled = !measured;
    byId("swept").replaceChildren(this.#map.element);
    byId("run-sweep").disabled = true;
    show(byId("stop-sweep"), true);
  }

  #end() {
    this.#running = null;
    byId("run-sweep").disabled = false;
    show(byId("stop-sweep"), false);
  }

  #failed(problem) {
    const stopped = problem.name === "AbortError";
    byId("sweep-status").textContent = stopped ? "Stopped." : "";
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

/** Even steps from the least to the greatest; one level where both are the same. */
function spread([least, most], steps) {
  const all = Array.from({ length: steps + 1 }, (_, step) => Math.round(1e4 * (least + (step * (most - least)) / steps)) / 1e4);
  return [...new Set(all)];
}
