// One answer as it is streamed: its text grows in the page, and its receipt comes with its end.

import { events } from "./api.js";
import { chatBody } from "./request.js";
import { el } from "./dom.js";
import { errorView } from "./errors.js";
import { receiptView } from "./receipt.js";

const ENDINGS = {
  length: "Cut off at the most tokens that it may have.",
  content_filter: "The operator's refusal stands in place of the answers, which were judged below the safety floor.",
};

/**
 * Streams into `box`. `heard` gets each piece of text.
 * Gives { text, receipt, view, problem }: `view` is the receipt in the page, and `problem` is what ended the answer
 * early, an AbortError where the caller did.
 */
export async function stream(asked, { box, control, signal, heard = () => {} }) {
  const text = el("div", { class: "said", role: "group", "aria-label": "Answer" });
  const answer = { text: "", receipt: null, view: null, problem: null, ending: null };
  box.replaceChildren(text);
  box.setAttribute("aria-busy", "true");
  try {
    for await (const chunk of events("chat/completions", { ...chatBody(asked), stream: true }, signal)) {
      heard(take(chunk, answer, text));
    }
  } catch (problem) {
    answer.problem = problem;
  }
  box.removeAttribute("aria-busy");
  finish(answer, { asked, box, control });
  return answer;
}

function take(chunk, answer, text) {
  const choice = chunk.choices?.[0];
  const piece = choice?.delta?.content ?? "";
  answer.text += piece;
  text.append(piece);
  answer.ending = choice?.finish_reason ?? answer.ending;
  answer.receipt = chunk.control ?? answer.receipt;
  return piece;
}

function finish(answer, { asked, box, control }) {
  const { problem, receipt, ending, text } = answer;
  if (!text) box.firstChild.remove();
  if (problem) box.append(problem.name === "AbortError" ? el("p", { class: "hint" }, "Stopped.") : errorView(problem));
  if (!text && !problem) box.append(el("p", { class: "hint" }, "The model said nothing."));
  if (ENDINGS[ending]) box.append(el("p", { class: "hint" }, ENDINGS[ending]));
  answer.view = receipt && receiptView(receipt, { asked, control });
  if (receipt) box.append(answer.view);
}
