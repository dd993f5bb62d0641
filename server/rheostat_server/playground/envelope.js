// What the caller may set, as GET /v1/control tells it, and what becomes of dials that lie beyond.

import { two } from "./dom.js";

export const DIALS = ["safety", "helpfulness"];

/** Dials that can be asked for with any use: beyond an envelope that rejects, and beside a locked dial, there is none. */
export function reachable(control) {
  const narrow = control.outside === "reject";
  return byDial((name) => {
    const { min, max, locked } = control.dials[name];
    return locked || narrow ? [min, max] : [0, 1];
  });
}

export const limits = (control) => byDial((name) => [control.dials[name].min, control.dials[name].max]);

export const defaults = (control) => byDial((name) => control.dials[name].default);

/** The dials that the server would put in force. */
export const nearest = (control, dials) => byDial((name) => within(dials[name], limits(control)[name]));

export const same = (one, other) => DIALS.every((name) => one[name] === other[name]);

export const within = (value, [least, most]) => Math.min(Math.max(value, least), most);

export const isWhole = (control) => DIALS.every((name) => control.dials[name].min === 0 && control.dials[name].max === 1);

/** The envelope in words. */
export function told(control) {
  if (isWhole(control)) return "You may set both dials anywhere.";
  const ranges = DIALS.map((name) => rangeTold(name, control.dials[name])).join(", ");
  const beyond = control.outside === "reject" ? "What lies beyond is refused." : "What lies beyond is moved inside.";
  return `Your envelope: ${ranges}. ${beyond}`;
}

function rangeTold(name, { min, max, locked }) {
  return locked ? `${name} locked at ${two(min)}` : `${name} ${two(min)} to ${two(max)}`;
}

/** The range of each dial that was measured for an adapter, or null where none was for either. */
export function attainable(control, adapterName, mode) {
  if (!usesAdapter(mode, control)) return null;
  const adapter = control.adapters.find((one) => one.name === adapterName) ?? control.adapters[0];
  if (!adapter || !Object.keys(adapter.attainable).length) return null;
  return byDial((name) => adapter.attainable[name] ?? [0, 1]);
}

export const reranks = (mode) => mode === "rerank" || mode.endsWith("+rerank");

export const takesAdapter = (mode) => ["auto", "adapter", "adapter+rerank"].includes(mode);

export const takesBlend = (mode) => ["auto", "blend", "blend+rerank"].includes(mode);

/** The names that a mode takes: of adapters, of blends, of both in "auto", or none. */
export function usable(control, mode) {
  const adapters = takesAdapter(mode) ? control.adapters : [];
  const blends = takesBlend(mode) ? (control.blends ?? []) : [];
  return [...adapters, ...blends].map(({ name }) => name);
}

const usesAdapter = (mode, control) => takesAdapter(mode) && control.adapters.length > 0;

function byDial(make) {
  return Object.fromEntries(DIALS.map((name) => [name, make(name)]));
}
