// Asks for the caller's key.

import { byId, show } from "./dom.js";
import { key } from "./api.js";

/** What a header can carry. */
const SENDABLE = /^[\x21-\x7e]*$/;

/** Calls `changed` when there is another key, or none any more. */
export class KeyDialog {
  #dialog = byId("key-dialog");
  #changed;

  constructor(changed) {
    this.#changed = changed;
    byId("key-button").addEventListener("click", () => this.open());
    byId("key-form").addEventListener("submit", (event) => this.#submit(event));
    byId("key-forget").addEventListener("click", () => this.#take(""));
    byId("key-cancel").addEventListener("click", () => this.#dialog.close());
    this.#tell();
  }

  open(problem = "") {
    byId("key-problem").textContent = problem;
    show(byId("key-problem"), Boolean(problem));
    byId("key").value = "";
    if (!this.#dialog.open) this.#dialog.showModal();
    byId("key").focus();
  }

  #submit(event) {
    event.preventDefault();
    const value = byId("key").value.trim();
    if (SENDABLE.test(value)) this.#take(value);
    else this.open("A key is one word of plain letters, digits and signs; this holds something else.");
  }

  #take(value) {
    key.set(value);
    byId("key").value = "";
    this.#dialog.close();
    this.#tell();
    this.#changed();
  }

  #tell() {
    byId("key-button").textContent = key.get() ? "Key: set" : "Key: none";
    show(byId("key-forget"), Boolean(key.get()));
  }
}
