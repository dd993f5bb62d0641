/** The client: one server, one key, and the dials that requests have where they name none. */

import { answerOf, pointOf, sweptOf, type Answer, type Point, type Swept } from "./answer.js";
import { chatBody, conversation, given, sweepBody } from "./body.js";
import type { ChatOptions, Defaults, Messages, PlanOptions, StreamOptions, SweepOptions } from "./body.js";
import { Connection } from "./connection.js";
import { RheostatError } from "./errors.js";
import { isCompletion, isControl, isModels, isPlan, isPoint, isScores, isSweep } from "./shapes.js";
import { AnswerStream } from "./stream.js";
import type { Control, Dials, Mode, Model, Plan, Scores } from "./types.js";

export interface Options {
  /** Address of the server, with or without `/v1`; empty for the one that the page came from. */
  readonly baseUrl?: string | undefined;
  /** Blanks and line ends about it are dropped. */
  readonly apiKey?: string | undefined;
  readonly dials?: Dials | undefined;
  readonly mode?: Mode | undefined;
  /** Left out, the first of the server's models, for which it is asked once. */
  readonly model?: string | undefined;
  /** Milliseconds that the server may be silent; of a whole answer all that it takes, of a stream each piece. */
  readonly timeout?: number | undefined;
  /** How often a request is tried again after 429, 503 or a broken connection. */
  readonly retries?: number | undefined;
  readonly fetch?: typeof globalThis.fetch | undefined;
}

/** Ends a request by itself. */
export interface Cancellable {
  readonly signal?: AbortSignal | undefined;
}

const HERE = "http://127.0.0.1:8000";
/** Less than the 300 s after which Node's own fetch waits no longer. */
const TIMEOUT = 240_000;
const LONGEST_TIMEOUT = 2 ** 31 - 1;
const RETRIES = 2;
const SENDABLE = /^[\x21-\x7e]+$/;

export class Rheostat {
  readonly #options: Options;
  readonly #connection: Connection;
  readonly #defaults: Defaults;
  #model: string | undefined;

  constructor(options: Options = {}) {
    this.#options = options;
    this.#defaults = { dials: given(options.dials ?? {}), mode: options.mode };
    this.#model = options.model;
    this.#connection = new Connection({
      baseUrl: (options.baseUrl ?? HERE).replace(/(\/v1)?\/*$/, ""),
      apiKey: sendable(options.apiKey),
      timeout: inRange("timeout", options.timeout ?? TIMEOUT, 1, LONGEST_TIMEOUT),
      retries: inRange("retries", options.retries ?? RETRIES, 0, 100),
      fetch: options.fetch ?? globalThis.fetch,
    });
  }

  /** What requests ask for where they name no dials. */
  get dials(): Dials {
    return this.#defaults.dials;
  }

  /** The same client with other dials, and another mode, of its own; what is left out stays. */
  withDials(dials: Dials, { mode = this.#defaults.mode }: { readonly mode?: Mode | undefined } = {}): Rheostat {
    return new Rheostat({ ...this.#options, model: this.#model, dials: { ...this.dials, ...given(dials) }, mode });
  }

  /** A whole answer. */
  async chat(messages: Messages, options: ChatOptions = {}): Promise<Answer> {
    const body = chatBody(messages, options, await this.#modelFor(options), this.#defaults);
    const asked = { path: "/v1/chat/completions", body, ...of(options) };
    return answerOf(await this.#connection.json(asked, isCompletion));
  }

  /** Pieces of text as they come; nothing is asked before the first is read. */
  stream(messages: Messages, options: StreamOptions = {}): AnswerStream {
    if (options["n"] !== undefined)
      throw new TypeError("n does not go with stream(), which reads one answer; use chat()");
    return new AnswerStream(async () => {
      const body = chatBody(messages, options, await this.#modelFor(options), this.#defaults);
      const streamed = { ...body, stream: true, stream_options: { include_usage: true } };
      return await this.#connection.events({ path: "/v1/chat/completions", body: streamed, ...of(options) });
    });
  }

  /** Every name that a request may give as its model; the base model is the first. */
  async models({ signal }: Cancellable = {}): Promise<readonly Model[]> {
    return (await this.#connection.json({ path: "/v1/models", signal }, isModels)).value.data;
  }

  /** What this key may set. */
  async control({ signal }: Cancellable = {}): Promise<Control> {
    return (await this.#connection.json({ path: "/v1/control", signal }, isControl)).value;
  }

  /** What a request would run; nothing is run. */
  async plan(messages: Messages, { stream, ...options }: PlanOptions = {}): Promise<Plan> {
    const body = { ...chatBody(messages, options, await this.#modelFor(options), this.#defaults), stream };
    return (await this.#connection.json({ path: "/v1/control/plan", body, ...of(options) }, isPlan)).value;
  }

  /** Levels of an answer that is given, by the server's scorers; null for a dial that could not be judged. */
  async score(messages: Messages, response: string, { signal }: Cancellable = {}): Promise<Scores> {
    const body = { messages: conversation(messages), response };
    return (await this.#connection.json({ path: "/v1/control/score", body, signal }, isScores)).value;
  }

  /** One conversation, answered at a grid of dials. */
  async sweep(messages: Messages, options: SweepOptions = {}): Promise<Swept> {
    const body = sweepBody(messages, options, await this.#modelFor(options), this.#defaults);
    return sweptOf(await this.#connection.json({ path: "/v1/control/sweep", body, ...of(options) }, isSweep));
  }

  /** The same, each point as soon as it is reached; leaving the loop ends the sweep. */
  async *sweepPoints(messages: Messages, options: SweepOptions = {}): AsyncGenerator<Point, void, undefined> {
    const body = sweepBody(messages, options, await this.#modelFor(options), this.#defaults);
    const asked = { path: "/v1/control/sweep", body: { ...body, stream: true }, ...of(options) };
    const events = await this.#connection.events(asked);
    for await (const point of events) {
      if (!isPoint(point)) throw events.unreadable(point);
      yield pointOf(point, events.requestId);
    }
  }

  async #modelFor(options: ChatOptions): Promise<string> {
    if (options.model !== undefined) return options.model;
    this.#model ??= (await this.models(of(options)))[0]?.id;
    if (this.#model === undefined) throw new RheostatError("the server lets this key use no model");
    return this.#model;
  }
}

function of({ signal }: ChatOptions): { signal: AbortSignal | undefined } {
  return { signal };
}

/** What a header can carry, or nothing. The error does not hold the key, which would end in a log. */
function sendable(apiKey: string | undefined): string | undefined {
  const key = apiKey?.trim();
  if (!key || SENDABLE.test(key)) return key || undefined;
  throw new TypeError("apiKey holds what no header can carry; it must be one word of plain letters, digits and signs");
}

function inRange(name: string, value: number, least: number, most: number): number {
  if (value >= least && value <= most) return value;
  throw new RangeError(`${name} is ${value}; it must be a number from ${least} to ${most}`);
}
