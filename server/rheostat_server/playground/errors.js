// An error as the server told it: its message, its code, and the request's id to ask the operator with.

import { el } from "./dom.js";

export function errorView(problem) {
  const facts = { status: problem.status || null, code: problem.code, request: problem.requestId };
  const known = Object.entries(facts).filter(([, value]) => value);
  return el(
    "div",
    { class: "problem", role: "alert" },
    el("p", {}, problem.message),
    known.length
      ? el("dl", { class: "facts" }, known.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))))
      : null,
  );
}
