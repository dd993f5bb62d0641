// A receipt, read at a glance: what was asked, in force and measured of each dial, what was moved and why, and by what means.

import { DIALS } from "./envelope.js";
import { duration, el, place, two } from "./dom.js";

const NONE = "–";
const COUNTED = { n: "choices", max_tokens: "tokens", max_completion_tokens: "tokens" };

/** `scores` are those of a judgement that was asked for afterwards; a reranked answer's receipt has its own. */
export function receiptView(receipt, { asked, control, scores = receipt.scores }) {
  return el(
    "div",
    { class: "receipt", role: "group", "aria-label": "Receipt", tabindex: "-1" },
    clampNotes(receipt, asked, control),
    receipt.effective ? dialsTable(receipt, scores, control) : el("p", { class: "hint" }, "No dial was in force: mode off."),
    facts(receipt, scores),
    el("details", {}, el("summary", {}, "Whole receipt"), el("pre", { tabindex: "0" }, JSON.stringify(receipt, null, 2))),
  );
}

function dialsTable(receipt, scores, control) {
  const heads = ["dial", "", "asked", "in force", ...(scores ? ["measured"] : [])];
  return el(
    "table",
    { class: "dial-table" },
    el("thead", {}, el("tr", {}, heads.map((head) => (head ? el("th", { scope: "col" }, head) : el("td"))))),
    el("tbody", {}, DIALS.map((name) => dialRow(name, receipt, scores, control.dials[name]))),
  );
}

function dialRow(name, { requested, effective, clamped = [] }, scores, range) {
  const moved = clamped.includes(name);
  return el(
    "tr",
    { class: moved ? "moved" : null, "data-dial": name },
    el("th", { scope: "row" }, name),
    el("td", { class: "track-cell" }, track({ asked: requested[name], inForce: effective[name], measured: scores?.[name] }, range)),
    el("td", {}, requested[name] === undefined ? "default" : two(requested[name])),
    el("td", {}, el("strong", {}, two(effective[name])), moved ? " clamped" : ""),
    scores ? el("td", {}, number(scores[name])) : null,
  );
}

/** The dial as a line: the envelope's part of it thick, and a mark for each value. */
function track({ asked, inForce, measured }, { min, max }) {
  const marks = { asked, "in-force": inForce, measured };
  const known = Object.entries(marks).filter(([, value]) => typeof value === "number");
  return el(
    "div",
    { class: "track", "aria-hidden": "true" },
    place(el("span", { class: "band" }), { from: min, to: max }),
    known.map(([name, value]) => place(el("span", { class: `mark mark-${name}` }), { x: value })),
  );
}

const number = (value) => (typeof value === "number" ? two(value) : NONE);

function clampNotes(receipt, asked, control) {
  const notes = (receipt.clamped ?? []).map((name) => clampNote(name, receipt, asked, control));
  return notes.length ? el("ul", { class: "clamped" }, notes.map((note) => el("li", {}, note))) : null;
}

function clampNote(name, { requested, effective, candidates }, asked, control) {
  if (DIALS.includes(name)) return dialNote(name, requested[name], effective[name], control.dials[name]);
  if (name === "candidates") {
    const most = control.reranking?.candidates.max ?? candidates?.wanted;
    return `${asked.candidates} candidates were asked for; your envelope lets a request have at most ${most}.`;
  }
  return `More ${COUNTED[name] ?? name} were asked for than your envelope lets an answer have; the most it lets was taken.`;
}

function dialNote(name, wanted, taken, { min, max, locked }) {
  const range = locked ? `locks ${name} at ${two(min)}` : `holds ${name} from ${two(min)} to ${two(max)}`;
  return `Asked for ${name} ${two(wanted)}; your envelope ${range}, so ${two(taken)} was in force.`;
}

/** How far an answer is from its dials, as reranking counts it: the sum of both differences. */
export function distance(scores, dials) {
  if (!dials || !DIALS.every((name) => typeof scores?.[name] === "number")) return null;
  return DIALS.reduce((sum, name) => sum + Math.abs(scores[name] - dials[name]), 0);
}

function facts(receipt, scores) {
  const apart = distance(scores, receipt.effective);
  const known = {
    mode: receipt.mode,
    adapter: receipt.adapter,
    candidates: receipt.candidates && candidatesTold(receipt),
    "below floor": receipt.choice?.below_floor || null,
    distance: apart === null ? null : two(apart),
    "told the model": receipt.control_text,
    wording: receipt.prompt_version,
    neutralised: receipt.neutralised,
    time: receipt.timing_ms && timeTold(receipt.timing_ms),
  };
  const told = Object.entries(known).filter(([, value]) => value !== null && value !== undefined);
  return el("dl", { class: "facts" }, told.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
}

function candidatesTold({ candidates, choice }) {
  const { wanted, generated = wanted, finished, why } = candidates;
  const number = generated === wanted ? `${wanted}` : `${generated} of ${wanted}${why ? ` (${why})` : ""}`;
  const written = finished === undefined || finished === generated ? "" : `, ${finished} to their end`;
  return `${number}${written}${choice?.ties ? `, ${choice.ties} as near` : ""}`;
}

function timeTold({ total, first_event: first, scorers }) {
  const parts = [total && duration(total), first && `first words after ${duration(first)}`, scorers && `scorers ${duration(scorers)}`];
  return parts.filter(Boolean).join(", ");
}
