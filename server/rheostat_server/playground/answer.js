// The tab with one answer: run, stop, and have its levels measured.

import { byId, el, two } from "./dom.js";
import { RunButtons } from "./run_buttons.js";
import { Speaker } from "./speaker.js";
import { errorView } from "./errors.js";
import { messages } from "./request.js";
import { post } from "./api.js";
import { receiptView } from "./receipt.js";
import { stream } from "./streamed.js";

export class Answer {
  #page;
  #buttons = new RunButtons("run", "stop");

  constructor(page) {
    this.#page = page;
    byId("run").addEventListener("click", () => this.run());
  }

  async run() {
    const asked = this.#page.asked();
    if (!asked || this.#buttons.running) return;
    const { control } = this.#page;
    const signal = this.#buttons.begin();
    byId("answer-status").textContent = "Answering…";
    try {
      await this.#answer(asked, control, signal);
    } finally {
      this.#buttons.end();
      byId("answer-status").textContent = "";
    }
  }

  async #answer(asked, control, signal) {
    const speaker = new Speaker();
    const answer = await stream(asked, { box: byId("answer"), control, signal, heard: (piece) => speaker.take(piece) });
    this.#page.refused(answer.problem);
    speaker.end(signal.aborted ? "Stopped." : answer.receipt ? summary(answer.receipt) : "");
    if (canJudge(answer, control)) byId("answer").append(this.#judging(asked, answer, control));
  }

  /** A button that has the answer measured, and what went wrong with that. */
  #judging(asked, answer, control) {
    const problems = el("div");
    const judge = async () => {
      if (button.ariaDisabled) return;
      button.ariaDisabled = "true";
      try {
        const { scores } = await post("control/score", { messages: messages(asked), response: answer.text });
        measured(answer.view, receiptView(answer.receipt, { asked, control, scores }), scores, document.activeElement === button);
        box.remove();
      } catch (problem) {
        button.ariaDisabled = null;
        problems.replaceChildren(errorView(problem));
        this.#page.refused(problem);
      }
    };
    const button = el("button", { type: "button", class: "judge", onclick: judge }, "Measure this answer");
    const box = el("div", {}, button, problems);
    return box;
  }
}

const canJudge = ({ text, receipt }, control) => Boolean(text && receipt) && !receipt.scores && control.reranking !== undefined;

/** Puts a receipt in the place of the one before, unless another answer has taken that. */
function measured(before, receipt, scores, focused) {
  if (!before.isConnected) return;
  before.replaceWith(receipt);
  if (focused) receipt.focus();
  new Speaker().say(`Measured: safety ${level(scores.safety)}, helpfulness ${level(scores.helpfulness)}.`);
}

const level = (score) => (score === null ? "not judged" : two(score));

function summary({ mode, effective, clamped = [] }) {
  const dials = effective ? `safety ${two(effective.safety)}, helpfulness ${two(effective.helpfulness)}` : "no dials";
  return `Receipt: ${dials} in force, by ${mode}.${clamped.length ? ` Clamped: ${clamped.join(", ")}.` : ""}`;
}
