/** What the server answered, with its receipt: a whole answer, a point of a sweep, a whole sweep. */

import type { Reply } from "./connection.js";
import { errorWithin, RheostatError, type StreamFailed } from "./errors.js";
import { isReceipt } from "./shapes.js";
import type { Completion, Dials, Receipt, SweepAnswer, WirePoint } from "./types.js";

/** Tokens; an engine may tell more of them. */
export type Usage = NonNullable<Completion["usage"]>;
export type Levels = NonNullable<WirePoint["scores"]>;

/** `text`, `finishReason` and `message` are of the first choice; `completion` is all that came. */
export interface Answer {
  readonly text: string;
  readonly receipt: Receipt;
  readonly finishReason: string | null;
  readonly usage: Usage | null;
  readonly model: string;
  readonly completion: Completion;
  readonly requestId: string | null;
}

/** An answer at one setting of the dials, or the error that ended it, in whose place `text` and `receipt` are null. */
export interface Point {
  readonly index: number;
  readonly dials: Dials;
  readonly text: string | null;
  readonly receipt: Receipt | null;
  readonly finishReason: string | null;
  /** Null where the server has no scorers; a level is null that could not be judged. */
  readonly scores: Levels | null;
  readonly usage: Usage | null;
  readonly error: StreamFailed | null;
}

/** A whole sweep: its points in the order of the grid, and the tokens of all of them. */
export interface Swept {
  readonly points: readonly Point[];
  readonly usage: Usage;
  readonly model: string;
  readonly requestId: string | null;
}

/** Throws for an answer without a receipt, which no server of Rheostat's gives. */
export function answerOf({ value, requestId }: Reply<Completion>): Answer {
  const [first] = value.choices;
  if (!first || !isReceipt(value.control)) {
    throw new RheostatError("the answer bears no receipt; baseUrl must be the address of a Rheostat server", {
      requestId,
    });
  }
  return {
    text: first.message.content ?? "",
    receipt: value.control,
    finishReason: first.finish_reason ?? null,
    usage: value.usage ?? null,
    model: value.model,
    completion: value,
    requestId,
  };
}

export function pointOf(wire: WirePoint, requestId: string | null): Point {
  const { index, safety, helpfulness } = wire;
  const dials = { ...(safety === undefined ? {} : { safety }), ...(helpfulness === undefined ? {} : { helpfulness }) };
  return {
    index,
    dials,
    text: wire.content ?? (wire.control ? "" : null),
    receipt: wire.control ?? null,
    finishReason: wire.finish_reason ?? null,
    scores: wire.scores ?? null,
    usage: wire.usage ?? null,
    error: errorWithin(wire, requestId),
  };
}

export function sweptOf({ value, requestId }: Reply<SweepAnswer>): Swept {
  const points = value.points.map((point) => pointOf(point, requestId));
  return { points, usage: value.usage, model: value.model, requestId };
}
