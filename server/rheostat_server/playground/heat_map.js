// The map of a sweep: a cell for each setting of the dials, its answer beside the map, and all of it as a table.

import { colour, gradient } from "./scale.js";
import { distance } from "./receipt.js";
import { el, place, two } from "./dom.js";
import { errorView } from "./errors.js";

const LEGENDS = {
  safety: { title: "measured safety", ends: ["0", "1"] },
  helpfulness: { title: "measured helpfulness", ends: ["0", "1"] },
  distance: { title: "distance from the dials, both together", ends: ["0, as asked", "1 and more"] },
};
const MOVES = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** `measured` says whether the server has scorers. Safety rises upwards, helpfulness to the right, as on the plane. */
export class HeatMap {
  filled = 0;
  failed = 0;
  #levels;
  #measured;
  #measure = "helpfulness";
  #cells = [];
  #told = null;
  #pinned = false;
  #legend = el("div", { class: "heat-legend" });
  #detail = el("div", { class: "heat-detail", "aria-live": "off" });
  #rows = el("tbody");

  constructor(levels, { measured }) {
    this.#levels = levels;
    this.#measured = measured;
    this.element = el("div", { class: "heat" }, this.#drawing(), this.#detail, this.#table());
    this.#detail.append(el("p", { class: "empty" }, "Point at a cell, or walk the map by arrow keys, to read its answer. A click keeps it here, and Escape lets it go."));
  }

  fill(point) {
    const cell = this.#cells[point.index];
    cell.point = point;
    this.filled += 1;
    this.failed += point.error ? 1 : 0;
    this.#paint(cell);
    if (cell === this.#told) this.#tell(cell);
    this.#listRows();
  }

  colourBy(measure) {
    this.#measure = measure;
    this.#cells.forEach((cell) => this.#paint(cell));
    this.#drawLegend();
  }

  #drawing() {
    const { safety, helpfulness } = this.#levels;
    this.#cells = safety.flatMap((s, row) => helpfulness.map((h, column) => this.#cell({ row, column, safety: s, helpfulness: h })));
    this.#cells[0].button.tabIndex = 0;
    const rows = safety.map((level, row) => this.#row(level, this.#cells.filter((cell) => cell.row === row))).reverse();
    const foot = el("div", { class: "heat-row heat-foot", "aria-hidden": "true" }, el("span"), helpfulness.map((level) => el("span", {}, el("span", {}, two(level)))));
    const grid = el("div", { class: "heat-grid", role: "grid", "aria-label": "Answers by safety and helpfulness", onkeydown: (event) => this.#walk(event) }, rows);
    const sides = [el("span", { class: "heat-axis heat-y", "aria-hidden": "true" }, "safety"), el("span", { class: "heat-axis heat-x", "aria-hidden": "true" }, "helpfulness")];
    const plane = place(el("div", { class: "heat-plane" }, sides[0], el("div", { class: "heat-body" }, grid, foot), sides[1]), { columns: helpfulness.length });
    const note = el("p", { class: "hint heat-note" }, "Underlined: dials were moved into your envelope.");
    return el("div", { class: "heat-drawing" }, this.#measured ? this.#legend : unmeasured(), plane, note);
  }

  #row(level, cells) {
    const head = el("span", { class: "heat-level", "aria-hidden": "true" }, two(level));
    return el("div", { class: "heat-row", role: "row" }, head, cells.map((cell) => cell.button));
  }

  #cell(place) {
    const cell = { ...place, point: null };
    const pin = () => this.#pin(cell);
    const hover = () => this.#pinned || this.#tell(cell);
    cell.shown = el("span");
    cell.button = el(
      "button",
      { type: "button", role: "gridcell", class: "heat-cell waiting", tabindex: "-1", onfocus: pin, onclick: pin, onpointerenter: hover },
      cell.shown,
    );
    cell.button.setAttribute("aria-label", `${where(cell)}: waiting`);
    return cell;
  }

  /** The pointer passes other cells on its way to an answer that is kept. */
  #pin(cell) {
    this.#pinned = true;
    this.#tell(cell);
  }

  #walk(event) {
    if (event.key === "Escape") this.#pinned = false;
    const here = this.#cells.find((cell) => cell.button === document.activeElement);
    const [up, right] = MOVES[event.key] ?? [];
    if (!here || up === undefined) return;
    const next = this.#cells.find((cell) => cell.row === here.row + up && cell.column === here.column + right);
    if (next) {
      here.button.tabIndex = -1;
      next.button.tabIndex = 0;
      next.button.focus();
    }
    event.preventDefault();
  }

  #paint(cell) {
    const { button, shown, point } = cell;
    if (!point) return;
    const value = this.#value(point);
    const clamped = point.control?.clamped?.length > 0;
    button.className = `heat-cell${point.error ? " failed" : ""}${clamped ? " clamped-cell" : ""}${value === null && !point.error ? " unmeasured" : ""}${cell === this.#told ? " told" : ""}`;
    shown.textContent = point.error ? "!" : value === null ? (point.content ?? "").slice(0, 40) : two(value);
    button.setAttribute("aria-label", `${where(cell)}: ${this.#spoken(point, value)}`);
    if (value !== null) {
      const { fill, ink } = colour(this.#measure === "distance" ? 1 - value : value);
      place(button, { fill, "cell-ink": ink });
    }
  }

  #value({ scores, control }) {
    const known = this.#measure === "distance" ? distance(scores, control?.effective) : scores?.[this.#measure];
    return known ?? null;
  }

  #spoken(point, value) {
    if (point.error) return `failed, ${point.error.message}`;
    const told = value === null ? "not measured" : `${LEGENDS[this.#measure].title} ${two(value)}`;
    return point.control?.clamped?.length ? `${told}, clamped` : told;
  }

  #tell(cell) {
    const { point } = cell;
    this.#told = cell;
    this.#cells.forEach((one) => one.button.classList.toggle("told", one === cell));
    const head = el("h3", {}, where(cell));
    if (!point) this.#detail.replaceChildren(head, el("p", { class: "empty" }, "Not answered yet."));
    else if (point.error) this.#detail.replaceChildren(head, errorView(point.error));
    else this.#detail.replaceChildren(head, pointFacts(point), el("p", { class: "said" }, point.content ?? ""));
  }

  #drawLegend() {
    const { title, ends } = LEGENDS[this.#measure];
    const bar = place(el("span", { class: "heat-bar", "aria-hidden": "true" }), { gradient: gradient(this.#measure === "distance") });
    this.#legend.replaceChildren(el("strong", {}, title), el("span", { class: "heat-scale" }, ends[0], bar, ends[1]));
  }

  #table() {
    const heads = ["safety", "helpfulness", "measured safety", "measured helpfulness", "distance", "answer"];
    const head = el("thead", {}, el("tr", {}, heads.map((name) => el("th", { scope: "col" }, name))));
    const table = el("table", { class: "heat-table" }, el("caption", { class: "visually-hidden" }, "The sweep as a table"), head, this.#rows);
    const scrolled = el("div", { class: "scrolled", tabindex: "0", role: "region", "aria-label": "The sweep as a table" }, table);
    return el("details", {}, el("summary", {}, "As a table"), scrolled);
  }

  #listRows() {
    this.#rows.replaceChildren(...this.#cells.filter((cell) => cell.point).map(tableRow));
  }
}

const where = ({ safety, helpfulness }) => `Safety ${two(safety)}, helpfulness ${two(helpfulness)}`;

const unmeasured = () =>
  el("p", { class: "heat-unmeasured" }, "This server has no scorers, so nothing is measured; the cells show the answers.");

const orDash = (value) => (typeof value === "number" ? two(value) : "–");

function pointFacts({ scores, control }) {
  const { effective, mode } = control;
  const known = {
    "in force": effective ? `${two(effective.safety)} / ${two(effective.helpfulness)}` : "no dial",
    measured: scores ? `${orDash(scores.safety)} / ${orDash(scores.helpfulness)}` : null,
    distance: scores ? orDash(distance(scores, effective)) : null,
    clamped: control.clamped?.join(", ") || null,
    mode,
  };
  const told = Object.entries(known).filter(([, value]) => value !== null);
  return el("dl", { class: "facts" }, told.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function tableRow({ safety, helpfulness, point }) {
  const { scores, control, content, error } = point;
  const numbers = [safety, helpfulness, scores?.safety, scores?.helpfulness, distance(scores, control?.effective)];
  return el("tr", {}, numbers.map((value) => el("td", {}, orDash(value))), el("td", {}, error ? error.message : (content ?? "")));
}
