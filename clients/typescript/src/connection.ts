/** Requests to one server: addresses, the key, time limits, retries, and answers told from errors. */

import {
  ConnectionFailed,
  errorOf,
  errorWithin,
  isRecord,
  requestIdOf,
  RheostatError,
  StreamBroken,
} from "./errors.js";
import { EventReader } from "./events.js";
import { Exchange, reasonOf } from "./exchange.js";
import { withRetries } from "./retries.js";
import type { Shape } from "./shapes.js";

/** How the server is reached. */
export interface Reach {
  readonly baseUrl: string;
  readonly apiKey: string | undefined;
  readonly timeout: number;
  readonly retries: number;
  readonly fetch: typeof globalThis.fetch;
}

/** A request without a body is a GET. */
export interface Asked {
  readonly path: string;
  readonly body?: unknown;
  readonly signal: AbortSignal | undefined;
}

export interface Reply<T> {
  readonly value: T;
  readonly requestId: string | null;
}

/** Milliseconds that a server has to end a response after its last event, so that the connection can be used again. */
const ENDS_WITHIN = 200;
/** Characters that an error shows of what it could not read. */
const SHOWN = 80;

export class Connection {
  readonly #reach: Reach;

  constructor(reach: Reach) {
    this.#reach = reach;
  }

  /** A whole answer. Once it has begun nothing is tried again: the server has done the work, and may have counted it. */
  json<T>(asked: Asked, shape: Shape<T>): Promise<Reply<T>> {
    return withRetries(() => this.#whole(asked, shape), { retries: this.#reach.retries, signal: asked.signal });
  }

  /** A stream that has begun; from here on nothing is tried again. */
  events(asked: Asked): Promise<Events> {
    return withRetries(() => this.#begun(asked), { retries: this.#reach.retries, signal: asked.signal });
  }

  async #whole<T>(asked: Asked, shape: Shape<T>): Promise<Reply<T>> {
    const exchange = new Exchange(this.#reach.timeout, asked.signal);
    try {
      const response = await this.#answered(asked, exchange);
      const text = await bodyOf(response, exchange);
      return { value: shaped(text, response, shape), requestId: requestIdOf(response) };
    } finally {
      exchange.end();
    }
  }

  async #begun(asked: Asked): Promise<Events> {
    const exchange = new Exchange(this.#reach.timeout, asked.signal);
    try {
      return new Events(await this.#answered(asked, exchange), exchange);
    } catch (error) {
      exchange.end();
      throw error;
    }
  }

  async #answered({ path, body }: Asked, exchange: Exchange): Promise<Response> {
    const { baseUrl, apiKey, fetch } = this.#reach;
    const headers = {
      ...(apiKey === undefined ? {} : { Authorization: `Bearer ${apiKey}` }),
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
    };
    const sent = body === undefined ? { method: "GET" } : { method: "POST", body: JSON.stringify(body) };
    const response = await exchange.next(() => fetch(baseUrl + path, { ...sent, headers, signal: exchange.signal }));
    if (response.ok) return response;
    throw errorOf(response, await bodyOf(response, exchange));
  }
}

/** What a stream's events hold, until `[DONE]`; leaving the loop earlier closes the connection. */
export class Events implements AsyncIterable<Record<string, unknown>> {
  readonly requestId: string | null;
  readonly #response: Response;
  readonly #exchange: Exchange;

  constructor(response: Response, exchange: Exchange) {
    this.requestId = requestIdOf(response);
    this.#response = response;
    this.#exchange = exchange;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Record<string, unknown>, void, undefined> {
    const reader = this.#response.body?.getReader();
    const events = new EventReader();
    try {
      for (;;) {
        const piece = await this.#exchange.next(async () => reader?.read(), this.#broken);
        if (piece?.value === undefined) throw this.#broken("it ended without [DONE]");
        for (const data of events.take(piece.value)) {
          if (data === "[DONE]") return await endOf(reader);
          yield this.#told(data);
        }
      }
    } finally {
      this.#exchange.end();
    }
  }

  /** Throws the error that ended the stream; that of a sweep's point, which has an index, ends no stream. */
  #told(data: string): Record<string, unknown> {
    const value = this.#object(data);
    const error = value["index"] === undefined ? errorWithin(value, this.requestId) : null;
    if (error) throw error;
    return value;
  }

  #object(data: string): Record<string, unknown> {
    try {
      const value: unknown = JSON.parse(data);
      if (isRecord(value)) return value;
    } catch (cause) {
      throw this.#broken(cause);
    }
    throw this.#broken("an event holds no JSON object");
  }

  /** The error of a stream that holds what its reader cannot take. */
  unreadable(value: object): StreamBroken {
    return this.#broken(`an event is none of this stream's: ${JSON.stringify(value).slice(0, SHOWN)}`);
  }

  readonly #broken = (cause: unknown): StreamBroken =>
    new StreamBroken(`the stream broke before its end: ${reasonOf(cause)}`, { requestId: this.requestId, cause });
}

async function endOf(reader: ReadableStreamDefaultReader<Uint8Array> | undefined): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, ENDS_WITHIN)));
  await Promise.race([reader?.read().catch(() => undefined), late]);
  clearTimeout(timer);
}

function bodyOf(response: Response, exchange: Exchange): Promise<string> {
  return exchange.next(
    () => response.text(),
    (cause) => cutOff(response, cause),
  );
}

function cutOff(response: Response, cause: unknown): ConnectionFailed {
  const { status } = response;
  const message = `an answer with status ${status} was cut off: ${reasonOf(cause)}`;
  return new ConnectionFailed(message, { status, requestId: requestIdOf(response), cause });
}

function shaped<T>(text: string, response: Response, shape: Shape<T>): T {
  const value = parsed(text, response);
  if (shape(value)) return value;
  throw unreadable(response, `what is none of its answers: ${text.slice(0, SHOWN)}`);
}

function parsed(text: string, response: Response): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw unreadable(response, `what is no JSON: ${text.slice(0, SHOWN)}`, cause);
  }
}

function unreadable(response: Response, what: string, cause?: unknown): RheostatError {
  const message = `${response.url} answered with ${what}; baseUrl must be the address of a Rheostat server`;
  return new RheostatError(message, { requestId: requestIdOf(response), cause });
}
