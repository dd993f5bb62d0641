/** Bodies of requests, made of what a caller asks for and what the client was made with. */

import type { ChatBody, Dials, Levels, Message, Mode, SweepBody } from "./types.js";

/** A conversation, or the one question that it consists of. */
export type Messages = string | readonly Message[];

/**
 * What one request asks for; the client's own `dials` and `mode` hold where it says nothing.
 *
 * A field that is not named here goes to the engine as it is, by its name on the wire: `top_p`, `stop`.
 */
export interface ChatOptions {
  /** A request that names a preset takes none of the client's own dials, nor its mode. */
  readonly dials?: Dials | undefined;
  readonly mode?: Mode | undefined;
  /** A name of `models()`; left out, the client's, or the first that the server has. */
  readonly model?: string | undefined;
  readonly adapter?: string | undefined;
  readonly preset?: string | undefined;
  readonly candidates?: number | undefined;
  readonly earlyStop?: boolean | undefined;
  readonly maxTokens?: number | undefined;
  readonly temperature?: number | undefined;
  readonly seed?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly [other: string]: unknown;
}

export interface StreamOptions extends ChatOptions {
  /** Of a reranked stream: tokens after which its candidate is chosen, or `"end"` for whole answers. */
  readonly chooseAfter?: number | "end" | undefined;
}

export interface PlanOptions extends StreamOptions {
  /** Plans a stream, with which alone `chooseAfter` goes. */
  readonly stream?: boolean | undefined;
}

export interface SweepOptions extends ChatOptions {
  /** Levels of either dial or of both; left out, five of each. */
  readonly levels?: Levels | undefined;
  /** `false` leaves the answers unjudged. */
  readonly scores?: boolean | undefined;
}

/** What the client was made with. */
export interface Defaults {
  readonly dials: Dials;
  readonly mode: Mode | undefined;
}

/** Fields that the client writes itself, and the option that stands for each. */
const OURS: Readonly<Record<string, string>> = {
  control: "dials, mode, adapter, preset, candidates, chooseAfter and earlyStop",
  max_tokens: "maxTokens",
  messages: "the first argument",
  stream: "stream()",
  stream_options: "stream()",
  sweep: "levels and scores of sweep()",
};

export function chatBody(messages: Messages, asked: StreamOptions, model: string, defaults: Defaults): ChatBody {
  const { dials, mode, model: _, adapter, preset, candidates, chooseAfter, earlyStop, ...rest } = asked;
  const { maxTokens, temperature, seed, signal: __, ...others } = rest;
  check(others);
  return {
    ...others,
    model,
    messages: conversation(messages),
    max_tokens: maxTokens,
    temperature,
    seed,
    control: {
      ...(preset === undefined ? defaults.dials : {}),
      ...given(dials ?? {}),
      mode: mode ?? (preset === undefined ? defaults.mode : undefined),
      adapter,
      preset,
      candidates,
      choose_after: chooseAfter,
      early_stop: earlyStop,
    },
  };
}

export function sweepBody(messages: Messages, asked: SweepOptions, model: string, defaults: Defaults): SweepBody {
  const { levels, scores, ...rest } = asked;
  return { ...chatBody(messages, rest, model, defaults), sweep: { ...levels, scores: scores ?? true } };
}

export function conversation(messages: Messages): readonly Message[] {
  return typeof messages === "string" ? [{ role: "user", content: messages }] : messages;
}

/** Those dials that have a value, so that one left open does not put out the client's own. */
export function given(dials: Dials): Dials {
  return Object.fromEntries(Object.entries(dials).filter(([, value]) => value !== undefined));
}

/** No name on the wire has capitals, so one that has is an option misspelt, and would be lost at the engine. */
function check(others: Readonly<Record<string, unknown>>): void {
  for (const name of Object.keys(others)) {
    const instead = OURS[name];
    if (instead !== undefined) throw new TypeError(`${name} is the client's to write; use ${instead}`);
    if (/[A-Z]/.test(name)) throw new TypeError(`${name} is no option; a field of the body has its name on the wire`);
  }
}
