// Tabs, by pointer and by keys.

import { byId, show } from "./dom.js";

const KEYS = { ArrowRight: 1, ArrowLeft: -1 };

/** Calls `chosen` with the name of the tab that comes to the front. */
export class Tabs {
  #tabs;
  #chosen;
  current = "";

  constructor(names, chosen) {
    this.#chosen = chosen;
    this.#tabs = names.map((name) => ({ name, tab: byId(`tab-${name}`), panel: byId(`panel-${name}`) }));
    this.#tabs.forEach(({ name, tab }, place) => {
      tab.addEventListener("click", () => this.choose(name));
      tab.addEventListener("keydown", (event) => this.#press(event, place));
    });
    this.choose(names[0]);
  }

  choose(chosen) {
    this.current = chosen;
    for (const { name, tab, panel } of this.#tabs) {
      tab.setAttribute("aria-selected", String(name === chosen));
      tab.tabIndex = name === chosen ? 0 : -1;
      show(panel, name === chosen);
    }
    this.#chosen(chosen);
  }

  #press(event, place) {
    const ends = { Home: 0, End: this.#tabs.length - 1 };
    const step = KEYS[event.key];
    if (step === undefined && !(event.key in ends)) return;
    const next = this.#tabs[ends[event.key] ?? (place + step + this.#tabs.length) % this.#tabs.length];
    this.choose(next.name);
    next.tab.focus();
    event.preventDefault();
  }
}
