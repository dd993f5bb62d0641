/** Checks that an answer is what its route gives, as far as a caller would stumble over it; for each route one. */

import { isRecord } from "./errors.js";
import type { Completion, Control, Models, Plan, Receipt, Scores, SweepAnswer, WirePoint } from "./types.js";

/** Whether a value has the parts that every answer of a route has. */
export type Shape<T> = (value: unknown) => value is T;

/** Its receipt is asked for apart, since another server of OpenAI's API has none. */
export const isCompletion: Shape<Completion> = (value): value is Completion =>
  isRecord(value) && isList(value["choices"], isChoice) && value["choices"].length > 0;

export const isModels: Shape<Models> = (value): value is Models =>
  isRecord(value) && isList(value["data"], (model) => isRecord(model) && typeof model["id"] === "string");

export const isControl: Shape<Control> = (value): value is Control =>
  isRecord(value) &&
  areRecords(value["dials"], ["safety", "helpfulness"]) &&
  areRecords(value, ["presets"]) &&
  Array.isArray(value["modes"]) &&
  Array.isArray(value["adapters"]);

export const isPlan: Shape<Plan> = (value): value is Plan =>
  isRecord(value) && typeof value["mode"] === "string" && isRecord(value["requested"]);

export const isScores: Shape<Scores> = (value): value is Scores =>
  areRecords(value, ["scores"]) && Array.isArray(value["scorers"]);

export const isSweep: Shape<SweepAnswer> = (value): value is SweepAnswer =>
  areRecords(value, ["usage"]) && isList(value["points"], isPoint);

/** An answer with its receipt, or the error in its place. */
export const isPoint: Shape<WirePoint> = (value): value is WirePoint =>
  isRecord(value) && typeof value["index"] === "number" && (isRecord(value["control"]) || isRecord(value["error"]));

export const isReceipt: Shape<Receipt> = (value): value is Receipt =>
  isRecord(value) && typeof value["mode"] === "string";

/** What an answer or a piece of one may hold as its text. */
export const isText = (value: unknown): value is string | null | undefined =>
  value === null || value === undefined || typeof value === "string";

const isChoice = (value: unknown): boolean =>
  isRecord(value) && isRecord(value["message"]) && isText(value["message"]["content"]);

function isList(value: unknown, isOne: (one: unknown) => boolean): value is unknown[] {
  return Array.isArray(value) && value.every(isOne);
}

function areRecords(value: unknown, names: readonly string[]): value is Record<string, unknown> {
  return isRecord(value) && names.every((name) => isRecord(value[name]));
}
