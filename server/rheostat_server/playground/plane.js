// The plane of safety and helpfulness: a point that is dragged or moved by keys, with the envelope drawn beneath it.

import { attainable, defaults, limits, nearest, reachable, same, within } from "./envelope.js";
import { byId, el, place, show, two } from "./dom.js";

const STEP = 0.05;
const FINE_STEP = 0.01;
const KEYS = {
  ArrowUp: ["safety", 1], ArrowDown: ["safety", -1], ArrowRight: ["helpfulness", 1], ArrowLeft: ["helpfulness", -1],
};

const rounded = (value) => Math.round(value * 100) / 100;

/** Calls `move` with new dials whenever the point is moved by hand. */
export class Plane {
  #plane = byId("plane");
  #knob = byId("knob");
  #control = null;
  #dials = null;
  #move;

  constructor(move) {
    this.#move = move;
    this.#plane.addEventListener("pointerdown", (event) => this.#grab(event));
    this.#plane.addEventListener("pointermove", (event) => this.#drag(event));
    this.#knob.addEventListener("keydown", (event) => this.#press(event));
  }

  enable(usable) {
    this.#knob.setAttribute("aria-disabled", String(!usable));
  }

  get #still() {
    return !this.#control || this.#knob.ariaDisabled === "true";
  }

  /** Draws all of it anew. `compared` are the points of the comparison. */
  draw(control, { dials, adapter, mode }, compared) {
    this.#control = control;
    this.#dials = dials;
    this.#drawLimits(attainable(control, adapter, mode));
    this.#drawPoint(mode);
    byId("pins").replaceChildren(...compared.map(({ number, at }) => pin(number, at)));
  }

  #drawLimits(measured) {
    const envelope = limits(this.#control);
    drawBox(byId("envelope"), envelope);
    byId("outside").setAttribute("d", `M0 0H100V100H0Z ${pathOf(envelope)}`);
    show(byId("attainable"), measured !== null);
    show(byId("legend-attainable"), measured !== null);
    if (measured) drawBox(byId("attainable"), measured);
    const narrow = Object.values(envelope).some(([least, most]) => least > 0 || most < 1);
    show(byId("legend-envelope"), narrow);
    put(byId("default-mark"), defaults(this.#control));
  }

  #drawPoint(mode) {
    const inForce = nearest(this.#control, this.#dials);
    const moved = mode !== "off" && !same(inForce, this.#dials);
    put(this.#knob, this.#dials);
    put(byId("ghost"), inForce);
    show(byId("ghost"), moved);
    show(byId("legend-ghost"), moved);
    byId("tether").setAttribute("d", moved ? line(this.#dials, inForce) : "");
    this.#knob.setAttribute("aria-valuenow", two(this.#dials.safety));
    this.#knob.setAttribute("aria-valuetext", spoken(this.#dials, moved ? inForce : null));
  }

  #grab(event) {
    if (event.button !== 0 || this.#still) return;
    this.#plane.setPointerCapture(event.pointerId);
    this.#moveTo(this.#under(event));
    this.#knob.focus();
    event.preventDefault();
  }

  #drag(event) {
    if (this.#plane.hasPointerCapture(event.pointerId)) this.#moveTo(this.#under(event));
  }

  #under({ clientX, clientY }) {
    const box = this.#plane.getBoundingClientRect();
    return { safety: 1 - (clientY - box.top) / box.height, helpfulness: (clientX - box.left) / box.width };
  }

  #press(event) {
    if (this.#still) return;
    const [name, direction] = KEYS[event.key] ?? [];
    if (name) {
      const step = direction * (event.shiftKey ? FINE_STEP : STEP);
      this.#moveTo({ ...this.#dials, [name]: this.#dials[name] + step });
    } else if (event.key === "Home") this.#moveTo(defaults(this.#control));
    else return;
    event.preventDefault();
  }

  #moveTo(wanted) {
    const room = reachable(this.#control);
    const kept = Object.entries(wanted).map(([name, value]) => [name, within(rounded(value), room[name])]);
    this.#move(Object.fromEntries(kept));
  }
}

/** Beside its point, on the side of the plane's middle, so that neither the knob nor an edge hides it. */
const pin = (number, at) => place(put(el("span", { class: "pin" }, String(number)), at), { side: at.safety > 0.5 ? 1 : -1 });

const put = (element, { safety, helpfulness }) => place(element, { x: helpfulness, y: safety });

function drawBox(rect, { safety, helpfulness }) {
  const size = { x: helpfulness[0], y: 1 - safety[1], width: helpfulness[1] - helpfulness[0], height: safety[1] - safety[0] };
  for (const [name, value] of Object.entries(size)) rect.setAttribute(name, String(100 * value));
}

function pathOf({ safety, helpfulness }) {
  const [left, right] = helpfulness.map((value) => 100 * value);
  const [bottom, top] = safety.map((value) => 100 - 100 * value);
  return `M${left} ${top}H${right}V${bottom}H${left}Z`;
}

const line = (from, to) =>
  `M${100 * from.helpfulness} ${100 - 100 * from.safety}L${100 * to.helpfulness} ${100 - 100 * to.safety}`;

function spoken({ safety, helpfulness }, inForce) {
  const asked = `safety ${two(safety)}, helpfulness ${two(helpfulness)}`;
  return inForce ? `${asked}; in force would be safety ${two(inForce.safety)}, helpfulness ${two(inForce.helpfulness)}` : asked;
}
