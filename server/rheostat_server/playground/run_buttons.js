// The two buttons of a tab's run: while it lasts the one waits and the other stops it, and the focus stays with them.

import { byId, show } from "./dom.js";

export class RunButtons {
  #run;
  #stop;
  #running = null;

  constructor(run, stop) {
    this.#run = byId(run);
    this.#stop = byId(stop);
    this.#stop.addEventListener("click", () => this.#running?.abort());
  }

  get running() {
    return this.#running !== null;
  }

  /** The signal by which the caller stops it. */
  begin() {
    this.#running = new AbortController();
    this.#run.setAttribute("aria-disabled", "true"); // a button that is disabled for good would lose the focus
    show(this.#stop, true);
    return this.#running.signal;
  }

  end() {
    this.#running = null;
    this.#run.removeAttribute("aria-disabled");
    if (document.activeElement === this.#stop) this.#run.focus();
    show(this.#stop, false);
  }
}
