// The tab with one answer: run, stop, and have its levels measured.

import { byId, el, show, two } from "./dom.js";
import { Speaker } from "./speaker.js";
import { errorView } from "./errors.js";
import { messages } from "./request.js";
import { post } from "./api.js";
import { receiptView } from "./receipt.js";
import { stream } from "./streamed.js";

export class Answer {
  #page;
  #running = null;

  constructor(page) {
    this.#page = page;
    byId("run").addEventListener("click", () => this.run());
    byId("stop").addEventListener("click", () => this.#running?.abort());
  }

  async run() {
    const asked = this.#page.asked();
    if (!asked || this.#running) return;
    const speaker = new Speaker();
    const control = this.#page.control;
    this.#begin();
    const made = { box: byId("answer"), control, signal: this.#running.signal, heard: (piece) => speaker.take(piece) };
    const answer = await stream(asked, made);
    this.#end();
    this.#page.refused(answer.problem);
    speaker.end(answer.receipt ? summary(answer.receipt) : "");
    if (answer.receipt && this.#canJudge(answer)) byId("answer").append(this.#judgeButton(asked, answer, control));
  }

  #begin() {
    this.#running = new AbortController();
    byId("run").disabled = true;
    show(byId("stop"), true);
    byId("answer-status").textContent = "Answering…";
  }

  #end() {
    this.#running = null;
    byId("run").disabled = false;
    show(byId("stop"), false);
    byId("answer-status").textContent = "";
  }

  #canJudge({ text, receipt }) {
    return Boolean(text) && !receipt.scores && this.#page.control.reranking !== undefined;
  }

  #judgeButton(asked, answer, control) {
    const judge = async () => {
      button.disabled = true;
      try {
        const { scores } = await post("control/score", { messages: messages(asked), response: answer.text });
        button.replaceWith();
        byId("answer").querySelector(".receipt")?.replaceWith(receiptView(answer.receipt, { asked, control, scores }));
        new Speaker().say(`Measured: safety ${level(scores.safety)}, helpfulness ${level(scores.helpfulness)}.`);
      } catch (problem) {
        button.replaceWith(errorView(problem));
      }
    };
    const button = el("button", { type: "button", class: "judge", onclick: judge }, "Measure this answer");
    return button;
  }
}

const level = (score) => (score === null ? "not judged" : two(score));

function summary({ mode, effective, clamped = [] }) {
  const dials = effective ? `safety ${two(effective.safety)}, helpfulness ${two(effective.helpfulness)}` : "no dials";
  return `Receipt: ${dials} in force, by ${mode}.${clamped.length ? ` Clamped: ${clamped.join(", ")}.` : ""}`;
}
