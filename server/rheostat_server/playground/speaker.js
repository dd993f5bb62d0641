// Says to a screen reader what happens: a streamed answer sentence by sentence, since word by word none can be followed.

import { byId, el } from "./dom.js";

const SENTENCE = /^[\s\S]*[.!?:\n](?=\s|$)/;

/** One answer or sweep; what was said before is forgotten. */
export class Speaker {
  #region = byId("spoken");
  #held = "";

  constructor() {
    this.#region.replaceChildren();
  }

  take(piece) {
    this.#held += piece;
    const whole = SENTENCE.exec(this.#held)?.[0] ?? "";
    this.#held = this.#held.slice(whole.length);
    this.say(whole);
  }

  end(last) {
    this.say(this.#held);
    this.#held = "";
    this.say(last);
  }

  say(text) {
    if (text.trim()) this.#region.append(el("p", {}, text.trim()));
  }
}
